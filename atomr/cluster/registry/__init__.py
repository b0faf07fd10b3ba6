"""Names that are unique in the whole cluster."""

from atomr.cluster.registry.errors import NameConflictError
from atomr.cluster.registry.registry import ClusterRegistry, RemotePids

__all__ = ["ClusterRegistry", "NameConflictError", "RemotePids"]
