"""Ready compositions: the runtimes ``hybrid`` and ``tiers``."""
