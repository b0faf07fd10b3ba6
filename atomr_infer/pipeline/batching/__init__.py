"""Many requests asked as one: the runtime ``batching``, and its server in code."""
