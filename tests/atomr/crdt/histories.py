"""Histories of three replicas, and what each type should show after one.

A history is a list of steps: write at a replica, or pull at one from another.  Each
write carries the clock of what its replica knew, so a specification can say what
the value is without sharing code with what it specifies: a write *follows* another
when it knew of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
from hypothesis import strategies as st

from atomr.crdt import (
    AWLWWMap,
    AWSet,
    BoundedCounter,
    Delta,
    DWFlag,
    EWFlag,
    GCounter,
    GSet,
    InsufficientRightsError,
    LWWRegister,
    MVRegister,
    Origin,
    ORMap,
    OwnedMap,
    PNCounter,
    Replicated,
    RWSet,
    WindowedGCounter,
)

ORIGINS = tuple(Origin(name, 1) for name in "abc")
LEDGERS = ("a", "b", "c")
NOW_S = 1_000

Write: TypeAlias = Callable[[Any, int], Delta]
Step: TypeAlias = tuple[str, int, int]
"""What is done, at which replica, and with which argument."""


def _move(replica: BoundedCounter, n: int) -> Delta:
    ledger = LEDGERS[ORIGINS.index(replica.origin)]
    try:
        if n % 2:
            return replica.spend(ledger, n)
        return replica.move(ledger, LEDGERS[n % 3], amount=n + 1)
    except (InsufficientRightsError, ValueError):
        return Delta()


def _mint(replica: BoundedCounter, n: int) -> Delta:
    return replica.mint(LEDGERS[ORIGINS.index(replica.origin)], n)


def _count_seconds(replica: WindowedGCounter, n: int) -> Delta:
    return replica.add(n, now_s=NOW_S + n, keep_s=3)


# Two elements, so that conflicts are common.
WRITES: dict[type[Replicated], dict[str, Write]] = {
    AWLWWMap: {
        "put": lambda r, n: r.put(f"k{n % 2}", n),
        "remove": lambda r, n: r.remove(f"k{n % 2}"),
    },
    AWSet: {
        "add": lambda r, n: r.add(n % 2),
        "remove": lambda r, n: r.remove(n % 2),
    },
    BoundedCounter: {"mint": _mint, "use": _move},
    DWFlag: {"enable": lambda r, _: r.enable(), "disable": lambda r, _: r.disable()},
    EWFlag: {"enable": lambda r, _: r.enable(), "disable": lambda r, _: r.disable()},
    GCounter: {"add": lambda r, n: r.increment(n)},
    GSet: {"add": lambda r, n: r.add(("x", n % 3))},
    LWWRegister: {"put": lambda r, n: r.assign(n)},
    MVRegister: {"put": lambda r, n: r.assign([n % 3])},
    ORMap: {
        "add": lambda r, n: r.field(n % 2, AWSet).add((n % 3, "e")),
        "assign": lambda r, n: r.field(n % 2, MVRegister).assign(n),
        "remove": lambda r, n: r.remove(n % 2),
    },
    OwnedMap: {
        "put": lambda r, n: r.put(f"k{n % 2}", n),
        "remove": lambda r, n: r.remove(f"k{n % 2}"),
    },
    PNCounter: {
        "add": lambda r, n: r.increment(n),
        "subtract": lambda r, n: r.decrement(n),
    },
    RWSet: {
        "add": lambda r, n: r.add(n % 2),
        "remove": lambda r, n: r.remove(n % 2),
    },
    WindowedGCounter: {"add": _count_seconds},
}
TYPES = tuple(WRITES)


def steps(kind: type[Replicated]) -> st.SearchStrategy[list[Step]]:
    """Return histories of a type: the steps write or pull."""
    whats = [*sorted(WRITES[kind]) * 2, "pull state", "pull diff", "pull deltas"]
    step = st.tuples(st.sampled_from(whats), st.integers(0, 2), st.integers(0, 5))
    return st.lists(step, max_size=14)


@attrs.define
class Done:
    """One write: what, where, its argument, and what its replica knew of."""

    what: str
    at: int
    n: int
    number: int
    knew: frozenset[int]
    delta: Delta

    def follows(self, other: Done) -> bool:
        return other.number in self.knew


@attrs.define
class World:
    """Three replicas and all that they did."""

    kind: type[Replicated]
    replicas: list[Any]
    known: list[dict[int, Done]]
    done: list[Done] = attrs.Factory(list)

    @classmethod
    def new(cls, kind: type[Replicated]) -> World:
        return cls(kind, [kind(o) for o in ORIGINS], [{}, {}, {}])

    def run(self, history: list[Step]) -> World:
        for what, at, n in history:
            if what.startswith("pull"):
                self.pull(what, at, (at + 1 + n % 2) % 3)
            else:
                self.write(what, at, n)
        return self

    def write(self, what: str, at: int, n: int) -> None:
        knew = frozenset(self.known[at])
        delta = WRITES[self.kind][what](self.replicas[at], n)
        done = Done(what, at, n, len(self.done), knew, delta)
        self.done.append(done)
        self.known[at][done.number] = done

    def pull(self, what: str, to: int, from_: int) -> None:
        target, source = self.replicas[to], self.replicas[from_]
        if what == "pull state":
            target.join(source)
        elif what == "pull diff":
            target.join(source.diff(target.seen.as_vector()))
        else:
            # The latest first: nothing may depend on the order.
            for done in reversed(self.known[from_].values()):
                target.join(done.delta)
        self.known[to] |= self.known[from_]

    def settle(self) -> None:
        """Pull until all know all."""
        for _ in range(2):
            for to in range(3):
                self.pull("pull state", to, (to + 1) % 3)
                self.pull("pull diff", to, (to + 2) % 3)


def last(writes: list[Done]) -> list[Done]:
    """Return the writes that no other one follows."""
    return [w for w in writes if not any(o.follows(w) for o in writes)]


def by_key(writes: list[Done], keys: int) -> dict[int, list[Done]]:
    return {k: [w for w in writes if w.n % keys == k] for k in range(keys)}


def specified(kind: type[Replicated], writes: list[Done]) -> Any:
    """Return what a replica that knows these writes should show."""
    return _SPECIFICATIONS[kind](writes)


def _aw_set(writes: list[Done]) -> frozenset[int]:
    return frozenset(
        k
        for k, ws in by_key(writes, 2).items()
        if any(
            a.what == "add" and not any(r.follows(a) for r in ws if r.what == "remove")
            for a in ws
        )
    )


def _rw_set(writes: list[Done]) -> frozenset[int]:
    return frozenset(
        k
        for k, ws in by_key(writes, 2).items()
        if ws and all(w.what == "add" for w in last(ws))
    )


def _aw_lww_map(writes: list[Done]) -> dict[str, set[int]]:
    shown = {
        f"k{k}": {w.n for w in last(ws) if w.what == "put"}
        for k, ws in by_key(writes, 2).items()
    }
    return {key: values for key, values in shown.items() if values}


def _owned_map(writes: list[Done]) -> dict[str, dict[Origin, int]]:
    shown: dict[str, dict[Origin, int]] = {}
    for k, ws in by_key(writes, 2).items():
        for at, origin in enumerate(ORIGINS):
            own = [w for w in ws if w.at == at]
            if own and own[-1].what == "put":
                shown.setdefault(f"k{k}", {})[origin] = own[-1].n
    return shown


def _or_map(writes: list[Done]) -> dict[int, dict[str, Any]]:
    shown: dict[int, dict[str, Any]] = {}
    for k, ws in by_key(writes, 2).items():
        removals = [w for w in ws if w.what == "remove"]
        kept = [w for w in ws if not any(r.follows(w) for r in removals)]
        added = frozenset((w.n % 3, "e") for w in kept if w.what == "add")
        assigned = {w.n for w in last([w for w in kept if w.what == "assign"])}
        if added:
            shown.setdefault(k, {})["aw_set"] = added
        if assigned:
            shown.setdefault(k, {})["mv_register"] = assigned
    return shown


_SPECIFICATIONS: dict[type[Replicated], Callable[[list[Done]], Any]] = {
    AWLWWMap: _aw_lww_map,
    AWSet: _aw_set,
    DWFlag: lambda ws: bool(ws) and all(w.what == "enable" for w in last(ws)),
    EWFlag: lambda ws: any(
        e.what == "enable" and not any(d.follows(e) for d in ws if d.what == "disable")
        for e in ws
    ),
    GCounter: lambda ws: sum(w.n for w in ws),
    GSet: lambda ws: frozenset(("x", w.n % 3) for w in ws),
    LWWRegister: lambda ws: {w.n for w in last(ws)},
    MVRegister: lambda ws: {w.n % 3 for w in last(ws)},
    ORMap: _or_map,
    OwnedMap: _owned_map,
    PNCounter: lambda ws: sum(w.n if w.what == "add" else -w.n for w in ws),
    RWSet: _rw_set,
}
SPECIFIED = tuple(_SPECIFICATIONS)


def shown(replica: Any) -> Any:
    """Return what a replica shows, in the form of its specification."""
    match replica:
        case AWLWWMap():
            return {key: set(replica.conflicts(key)) for key in replica}
        case LWWRegister():
            return {v for v in (replica.value,) if v is not None}
        case MVRegister():
            return {value[0] for value in replica.values}
        case ORMap():
            return {
                key: {
                    kind: set(value) if kind == "mv_register" else value
                    for kind, value in fields.items()
                }
                for key, fields in replica.value.items()
            }
        case WindowedGCounter():
            return replica.value(now_s=NOW_S + 5, window_s=6)
    return replica.value
