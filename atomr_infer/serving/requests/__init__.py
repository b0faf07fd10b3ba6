"""A request's way: over deployments and attempts, to its answer and its bill."""
