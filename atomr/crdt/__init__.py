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
)
from atomr.crdt.flags import DWFlag, EWFlag
from atomr.crdt.hybrid_clock import HybridClock
from atomr.crdt.maps import AWLWWMap, OwnedMap
from atomr.crdt.or_map import ORMap
from atomr.crdt.origin import Dot, Origin
from atomr.crdt.registers import LWWRegister, MVRegister
from atomr.crdt.replicated import Replicated
from atomr.crdt.sets import AWSet, GSet, RWSet
from atomr.crdt.version_vector import VersionVector
from atomr.crdt.wire import Delta, Entry, Event, Key

__all__ = [
    "AWLWWMap",
    "AWSet",
    "BadKeyError",
    "BoundError",
    "BoundedCounter",
    "CausalContext",
    "CrdtError",
    "DWFlag",
    "Delta",
    "DifferentCrdtError",
    "Dot",
    "EWFlag",
    "Entry",
    "Event",
    "GCounter",
    "GSet",
    "HybridClock",
    "InsufficientRightsError",
    "Key",
    "LWWRegister",
    "MVRegister",
    "MalformedError",
    "NoOriginError",
    "ORMap",
    "Origin",
    "OwnedMap",
    "PNCounter",
    "RWSet",
    "Replicated",
    "VersionVector",
    "WindowedGCounter",
]
