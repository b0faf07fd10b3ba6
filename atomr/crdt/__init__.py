"""Replicated data that converges without a leader: values, deltas and their log.

Pure: no trio, no clock, no randomness; time and origins are arguments.
"""

from atomr.crdt.bounded_counter import BoundedCounter
from atomr.crdt.causal_context import CausalContext
from atomr.crdt.counters import GCounter, PNCounter, WindowedGCounter
from atomr.crdt.errors import (
    BadKeyError,
    BoundError,
    CrdtError,
    DifferentCrdtError,
    InsufficientRightsError,
    MalformedError,
    NoOriginError,
    ValueSizeError,
)
from atomr.crdt.event_log import EventLog, Took
from atomr.crdt.flags import DWFlag, EWFlag
from atomr.crdt.hybrid_clock import HybridClock
from atomr.crdt.log_tail import Batch, Front, LogTail
from atomr.crdt.maps import AWLWWMap, OwnedMap
from atomr.crdt.or_map import ORMap
from atomr.crdt.origin import Dot, Origin
from atomr.crdt.registers import LWWRegister, MVRegister
from atomr.crdt.replicated import Replicated
from atomr.crdt.sets import AWSet, GSet, RWSet
from atomr.crdt.snapshots import Assembly, Chunk
from atomr.crdt.version_vector import VersionVector
from atomr.crdt.waiting import Waiting
from atomr.crdt.wire import Delta, Entry, Event, Key

__all__ = [
    "AWLWWMap",
    "AWSet",
    "Assembly",
    "BadKeyError",
    "Batch",
    "BoundError",
    "BoundedCounter",
    "CausalContext",
    "Chunk",
    "CrdtError",
    "DWFlag",
    "Delta",
    "DifferentCrdtError",
    "Dot",
    "EWFlag",
    "Entry",
    "Event",
    "EventLog",
    "Front",
    "GCounter",
    "GSet",
    "HybridClock",
    "InsufficientRightsError",
    "Key",
    "LWWRegister",
    "LogTail",
    "MVRegister",
    "MalformedError",
    "NoOriginError",
    "ORMap",
    "Origin",
    "OwnedMap",
    "PNCounter",
    "RWSet",
    "Replicated",
    "Took",
    "ValueSizeError",
    "VersionVector",
    "Waiting",
    "WindowedGCounter",
]
