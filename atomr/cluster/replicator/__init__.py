"""Replicated values on each node, kept equal over the cluster's links.

``docs/reference/replicator.md`` says how it is used, and what is promised.
"""

from atomr.cluster.replicator.changes import ABSENT, Changed, Missed
from atomr.cluster.replicator.durable import OnFailure, StoreOptions
from atomr.cluster.replicator.errors import (
    NotReplicatingError,
    NotStoredError,
    ReplicatorError,
    ShardStoreError,
)
from atomr.cluster.replicator.handles import MapHandle, OwnedHandle, ValueHandle
from atomr.cluster.replicator.options import ReplicatorOptions
from atomr.cluster.replicator.replicator import Replicator

__all__ = [
    "ABSENT",
    "Changed",
    "MapHandle",
    "Missed",
    "NotReplicatingError",
    "NotStoredError",
    "OnFailure",
    "OwnedHandle",
    "Replicator",
    "ReplicatorError",
    "ReplicatorOptions",
    "ShardStoreError",
    "StoreOptions",
    "ValueHandle",
]
