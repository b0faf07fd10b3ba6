"""A deployment is taken over by another one step by step, on all nodes."""
