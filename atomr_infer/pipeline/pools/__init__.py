"""One of several deployments: the runtime ``pool``."""
