"""How the logs of a shard become equal: pushes, digests, snapshots.

Pure: the clock and the generator are arguments.
"""

from atomr.gossip.replication.events import (
    Applied,
    Diverged,
    Effect,
    Event,
    Gone,
    Joined,
    MustReset,
    PeerDown,
    PeerUp,
    Quorum,
    Received,
    Retired,
    Send,
    Suspicious,
    Woke,
    Wrote,
)
from atomr.gossip.replication.frames import (
    AskSnapshot,
    Digest,
    Events,
    Frame,
    Push,
    Reset,
    SnapshotPart,
    decode,
    digest_of,
    encode,
)
from atomr.gossip.replication.machine import Replication
from atomr.gossip.replication.options import ReplicationOptions

__all__ = [
    "Applied",
    "AskSnapshot",
    "Digest",
    "Diverged",
    "Effect",
    "Event",
    "Events",
    "Frame",
    "Gone",
    "Joined",
    "MustReset",
    "PeerDown",
    "PeerUp",
    "Push",
    "Quorum",
    "Received",
    "Replication",
    "ReplicationOptions",
    "Reset",
    "Retired",
    "Send",
    "SnapshotPart",
    "Suspicious",
    "Woke",
    "Wrote",
    "decode",
    "digest_of",
    "encode",
]
