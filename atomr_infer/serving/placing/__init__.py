"""Which deployments of a cluster this node runs, and how all nodes come to agree."""
