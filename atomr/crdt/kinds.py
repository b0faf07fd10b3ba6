"""Which types there are, by their names on the wire.

A log that gets events of a type makes a replica of it, whether somebody here has
opened it or not.  Events of a type that is not in this list come from a newer
version; they are kept and passed on as they are.

Pure.
"""

from __future__ import annotations

from atomr.crdt.bounded_counter import BoundedCounter
from atomr.crdt.counters import GCounter, PNCounter, WindowedGCounter
from atomr.crdt.flags import DWFlag, EWFlag
from atomr.crdt.maps import AWLWWMap, OwnedMap
from atomr.crdt.or_map import ORMap
from atomr.crdt.registers import LWWRegister, MVRegister
from atomr.crdt.replicated import Replicated
from atomr.crdt.sets import AWSet, GSet, RWSet

KINDS: dict[str, type[Replicated]] = {
    kind.KIND: kind
    for kind in (
        AWLWWMap,
        AWSet,
        BoundedCounter,
        DWFlag,
        EWFlag,
        GCounter,
        GSet,
        LWWRegister,
        MVRegister,
        ORMap,
        OwnedMap,
        PNCounter,
        RWSet,
        WindowedGCounter,
    )
}


def replica_of(crdt_id: str) -> Replicated:
    """Return an empty replica for an id, of its type where that is known."""
    kind, _, name = crdt_id.partition("/")
    replica = KINDS.get(kind, Replicated)(name=name)
    replica.crdt_id = crdt_id
    return replica
