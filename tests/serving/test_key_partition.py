"""Virtual keys while nodes are cut off from each other, and after they meet again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr.cluster.replicator import Replicator
from atomr.crdt import AWLWWMap, Delta, GSet, Key, Origin, Replicated
from atomr.process import spawn
from atomr_infer.model.key_secret import digest_of
from atomr_infer.model.virtual_key import VirtualKey
from atomr_infer.serving.limits.key_errors import KeyRingError
from atomr_infer.serving.limits.key_ring import Issued, KeyRing
from tests.atomr.cluster.replicator.lab import Lab, LabNode, open_lab
from tests.atomr.http2.conftest import Authority
from tests.gateway.http import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def is_open(ring: KeyRing, issued: Issued) -> bool:
    standing = ring.find(digest_of(issued.secret.reveal()))
    return standing is not None and standing.is_open(ring.wall_s())


# --- real links -----------------------------------------------------------------------


async def ringed(lab: Lab, name: str) -> tuple[LabNode, KeyRing]:
    """A node with a ring of keys."""
    replicator = Replicator()
    node = await lab.start(name, replicator)
    ring = KeyRing(replicator)
    node.do(spawn, ring.run)
    return node, ring


async def test_a_revocation_in_one_half_wins_over_what_the_other_half_did(
    tmp_path: Path,
) -> None:
    async with open_lab(Authority(tmp_path)) as lab:
        (a, here), (b, there) = await ringed(lab, "a"), await ringed(lab, "b")
        await lab.link("a", "b")
        key = VirtualKey(id=here.new_id(), name="ci")
        first: Issued = await a.run(here.create, key)
        other = VirtualKey(id=here.new_id(), name="other")
        second: Issued = await a.run(here.create, other)
        await until(lambda: is_open(there, first) and is_open(there, second))
        a.cut(b)
        await until(lambda: b.links.get("a") is None)

        await a.run(here.revoke, "ci")

        async def rotate(ring: KeyRing, name: str, grace_s: float) -> Issued:
            return await ring.rotate(name, grace_s=grace_s)

        late: Issued = await b.run(rotate, there, "ci", 3600.0)
        assert is_open(there, late), "nobody has told b"
        ours: Issued = await a.run(rotate, here, "other", 0.0)
        theirs: Issued = await b.run(rotate, there, "other", 3600.0)

        await lab.link("a", "b")
        await until(lambda: not is_open(there, late))
        await until(lambda: is_open(here, theirs) and is_open(there, ours))
        # The shorter of two graces counts; a secret's end may come after its successor.
        await until(lambda: not is_open(there, second))
        for ring in (here, there):
            assert not is_open(ring, first)
            assert not is_open(ring, late)
            assert not is_open(ring, second)


# --- any order of everything ---------------------------------------------------------


@attrs.define
class _Map:
    """A map as a handle shows it, over the real replicated type."""

    replica: AWLWWMap
    _wall_ms: Callable[[], int]

    def put(self, key: Key, value: object) -> None:
        self.replica.put(key, value, now_ms=self._wall_ms())

    def items(self) -> Iterator[tuple[Key, Any]]:
        return self.replica.items()

    def __contains__(self, key: object) -> bool:
        return key in self.replica


@attrs.define
class _Set:
    replica: GSet

    def write(self, change: Callable[[GSet], Delta]) -> Delta:
        return change(self.replica)

    def read(self) -> GSet:
        return self.replica


class Half:
    """A part of a cluster that is cut off from the others: its replicas, its ring."""

    store = None

    def __init__(self, number: int, skew_s: int) -> None:
        self.origin = Origin(f"node{number}", 1)
        self.skew_s = skew_s
        self.values: dict[str, Replicated] = {}
        ring: Any = KeyRing(self, wall_s=lambda: float(1_000_000 + skew_s))  # type: ignore[arg-type] # it is enough of one
        self.ring: KeyRing = ring

    def running(self) -> None:
        """It always does."""

    def open_map(self, name: str) -> _Map:
        made = self.values[name] = AWLWWMap(self.origin)
        return _Map(made, lambda: 1_000 * (1_000_000 + self.skew_s))

    def open(self, kind: type[GSet], name: str) -> _Set:
        made = self.values[name] = kind(self.origin)
        return _Set(made)

    def meet(self, other: Half) -> None:
        """Hear all that another one knows."""
        for name, value in self.values.items():
            value.join(other.values[name])
        self.ring.facts._merge()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("create", "rotate", "revoke", "meet")),
        st.integers(0, 2),
        st.integers(0, 3),
    ),
    max_size=30,
)


async def perform(halves: list[Half], steps: list[tuple[str, int, int]]) -> Run:
    run = Run()
    for did, at, what in steps:
        half = halves[at]
        if did == "meet":
            half.meet(halves[what % 3])
            continue
        try:
            await run.step(half.ring, did, run.names[what % len(run.names)])
        except KeyRingError:
            continue  # it knows of none, or of one that is over
    return run


@attrs.define
class Run:
    """What operators did, and what they were shown.

    Attributes:
        issued: all secrets that somebody was shown.
        revoked: the keys that somebody was told to be revoked.
        rotated: the secrets that were told to end at once.
    """

    issued: list[Issued] = attrs.field(factory=list)
    revoked: set[str] = attrs.field(factory=set)
    rotated: set[bytes] = attrs.field(factory=set)
    names: tuple[str, ...] = ("k0", "k1")

    async def step(self, ring: KeyRing, did: str, name: str) -> None:
        if did == "create":
            key = VirtualKey(id=ring.new_id(), name=name)
            self.issued.append(await ring.create(key))
        elif did == "revoke":
            self.revoked.add((await ring.revoke(name)).id)
        else:
            issued = await ring.rotate(name, grace_s=0)
            last = digest_of(issued.secret.reveal())
            ended = ring.table.standings(issued.key.id)
            self.rotated |= {s.secret.digest for s in ended} - {last}
            self.issued.append(issued)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, skews=st.tuples(*[st.integers(-500, 500)] * 3))
def test_after_all_have_met_all_know_the_same_and_what_was_closed_is(
    steps: list[tuple[str, int, int]], skews: tuple[int, int, int]
) -> None:
    """Whatever happens in which half, in which order, by clocks that differ."""
    halves = [Half(number, skew) for number, skew in enumerate(skews)]
    run = trio.run(perform, halves, steps)
    for _ in range(2):
        for half in halves:
            for other in halves:
                half.meet(other)
    for half in halves:
        for issued in run.issued:
            digest = digest_of(issued.secret.reveal())
            closed = issued.key.id in run.revoked or digest in run.rotated
            assert is_open(half.ring, issued) is not closed
        tables = [half.ring.table for half in halves]
        assert all(table.keys == tables[0].keys for table in tables)
        assert all(table.revoked == tables[0].revoked for table in tables)
        assert all(table.ends == tables[0].ends for table in tables)
