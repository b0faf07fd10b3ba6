"""Which node runs which replicas, and why another one does not.

Every node computes the plan from what it knows, and knows the same as the
others a moment after something changed; so the plan needs no leader.  Three
rules keep it still:

1. What runs stays.  A node that joins takes nothing away, unless another one
   has two replicas more than it would have; a node that leaves loses its own.
2. What must be placed goes where the fewest replicas of the deployment are, and
   among equals where the hash of deployment and node is highest, so that nodes
   which decide alone decide alike.
3. What is too much is taken from where the most are, and the hash is lowest.

Nodes that know different things may run a replica twice, or wait for each other
to run it, until they know the same; never does a replica end for a plan that
has not been carried out elsewhere (that rule is the caller's: ``Placed`` is what
shall be, not what must be stopped now).

A replica's GPUs are all of one node.  What a replica has is not moved to other
GPUs, and what a replica that shall end has is free when it has ended.

Pure.

Source: Thaler, Ravishankar, "Using name-based mappings to increase hit rates".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.placement import Placement, Role

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

Gpus = tuple[int, ...]
"""The GPUs of one replica, by their number on its node."""


@attrs.frozen(kw_only=True)
class Wanted:
    """A deployment that shall run.

    Attributes:
        name: the deployment's.
        replicas: copies; on each node, or in all, as ``placement`` says.
        placement: what a node must be.
        remote: whether its runtime asks a provider over the network.
    """

    name: str
    replicas: int
    placement: Placement = attrs.field(factory=Placement)
    remote: bool = False

    @property
    def everywhere(self) -> bool:
        """Whether each node that fits runs all copies."""
        chosen = self.placement.everywhere
        return self.remote if chosen is None else chosen

    @property
    def roles(self) -> frozenset[Role]:
        """What a node must be.

        >>> sorted(r.value for r in Wanted(name="a", replicas=1, remote=True).roles)
        ['egress']
        """
        if self.placement.roles:
            return self.placement.roles
        egress = {Role.EGRESS} if self.remote else set()
        return frozenset(egress | ({Role.GPU} if self.placement.gpus else set()))


@attrs.frozen(kw_only=True)
class Site:
    """A node on which replicas may run.

    Attributes:
        name: the node's.
        roles: what it is there for.
        labels: what it says of itself: ``region``, ...
        gpus_gib: the memory of each of its GPUs.
        held: what runs here, by deployment: the GPUs of each replica.
        refusals: why a deployment cannot run here although it would fit, by name.
        leaving: whether it is about to go; it gets nothing, and keeps what no
            other node can take.
    """

    name: str
    roles: frozenset[Role] = frozenset(Role)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    gpus_gib: tuple[float, ...] = ()
    held: Mapping[str, tuple[Gpus, ...]] = attrs.field(factory=dict)
    refusals: Mapping[str, str] = attrs.field(factory=dict)
    leaving: bool = False


class Why(Enum):
    """A kind of reason for which a node was not taken."""

    ROLE = "role"
    LABEL = "label"
    GPUS = "gpus"
    GPU_MEMORY = "gpu_memory"
    COLOCATION = "colocation"
    REFUSED = "refused"
    LEAVING = "leaving"
    NOT_NEEDED = "not_needed"


@attrs.frozen
class Passed:
    """A node that was not taken.

    Attributes:
        node: its name.
        why: the kind of reason.
        detail: the reason, in a few words.
    """

    node: str
    why: Why
    detail: str


@attrs.frozen(kw_only=True)
class Placed:
    """Where the replicas of a deployment shall run.

    Attributes:
        deployment: its name.
        nodes: the GPUs of each replica, by node.
        missing: replicas for which there is no place.
        passed: the nodes that were not taken, each with its reasons.
    """

    deployment: str
    nodes: Mapping[str, tuple[Gpus, ...]]
    missing: int = 0
    passed: tuple[Passed, ...] = ()

    @property
    def obstacles(self) -> str:
        """Why nodes that are not taken cannot be, in one line.

        >>> Placed(deployment="a", nodes={}, missing=1).obstacles
        'there is no node'
        """
        hard = [p for p in self.passed if p.why is not Why.NOT_NEEDED]
        told = "; ".join(f"{passed.node}: {passed.detail}" for passed in hard)
        return told or "there is no node"


def plan(wanted: Iterable[Wanted], sites: Iterable[Site]) -> dict[str, Placed]:
    """Return where each deployment shall run, by its name.

    Args:
        wanted: all deployments, in any order.
        sites: all nodes that may be counted on, in any order.

    Cost: some 20 microseconds for each deployment and node.
    """
    by_name = {each.name: each for each in wanted}
    rooms = [_Room(site, by_name) for site in sorted(sites, key=lambda site: site.name)]
    placed: dict[str, Placed] = {}
    for each in _in_order(by_name):
        placed[each.name] = _Search(each, rooms, placed).place()
    return placed


@lru_cache(maxsize=16_384)
def rank(deployment: str, node: str) -> int:
    """Return how much a node is preferred for a deployment; the highest is first."""
    digest = blake2b(f"{deployment}\0{node}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _in_order(wanted: Mapping[str, Wanted]) -> list[Wanted]:
    """Return those that others stand beside first, then those with the most GPUs."""
    rest = sorted(wanted.values(), key=lambda w: (-w.placement.gpus, w.name))
    order: dict[str, Wanted] = {}
    while rest:
        free = [
            w for w in rest if _beside(w, wanted) in order or not _beside(w, wanted)
        ]
        # A circle is refused before it comes here; whoever made one waits.
        for each in free or rest:
            order[each.name] = each
        rest = [each for each in rest if each.name not in order]
    return list(order.values())


def _beside(each: Wanted, wanted: Mapping[str, Wanted]) -> str | None:
    other = each.placement.colocate_with
    return other if other in wanted else None


class _Room:
    """What is free on a node, while a plan is made."""

    def __init__(self, site: Site, wanted: Mapping[str, Wanted]) -> None:
        self.site = site
        self._free = list(site.gpus_gib)
        for name in sorted(site.held):
            for gpus in site.held[name]:
                if name not in wanted or len(gpus) == wanted[name].placement.gpus:
                    self._take(gpus, wanted.get(name))

    def _take(self, gpus: Gpus, wanted: Wanted | None) -> None:
        share = None if wanted is None else wanted.placement.gpu_memory_gib
        for number in gpus:
            if number < len(self._free):
                left = 0.0 if share is None else self._free[number] - share
                self._free[number] = max(0.0, left)

    def take(self, wanted: Wanted) -> Gpus | None:
        """Give a replica its GPUs: those that it fills best; None: no room."""
        need = wanted.placement.gpus
        fit = list(self._usable(wanted))
        if len(fit) < need:
            return None
        fit.sort(key=lambda number: (self._free[number], number))
        gpus = tuple(sorted(fit[:need]))
        self._take(gpus, wanted)
        return gpus

    def has_room(self, wanted: Wanted) -> bool:
        """Whether one more replica would find its GPUs."""
        return len(list(self._usable(wanted))) >= wanted.placement.gpus

    def _usable(self, wanted: Wanted) -> Iterator[int]:
        share = wanted.placement.gpu_memory_gib
        for number, total in enumerate(self.site.gpus_gib):
            if self._free[number] >= (total if share is None else share):
                yield number

    def full(self, wanted: Wanted) -> Passed:
        """Say why one more replica has no room."""
        need, share = wanted.placement.gpus, wanted.placement.gpu_memory_gib
        have = len(self.site.gpus_gib)
        if have < need:
            detail = f"has {have} GPU{'' if have == 1 else 's'}, not {need}"
            return Passed(self.site.name, Why.GPUS, detail)
        free = len(list(self._usable(wanted)))
        of = "all memory" if share is None else f"{share:g} GiB"
        detail = f"has {free} of {need} GPUs with {of} free"
        return Passed(self.site.name, Why.GPU_MEMORY, detail)


class _Search:
    """The search for one deployment's places."""

    def __init__(
        self, wanted: Wanted, rooms: Sequence[_Room], placed: Mapping[str, Placed]
    ) -> None:
        self._wanted = wanted
        self._passed: list[Passed] = []
        self._rooms: dict[str, _Room] = {}
        self._leaving: dict[str, _Room] = {}
        for room in rooms:
            reasons = list(_reasons(wanted, room.site, placed))
            self._passed += reasons
            if not reasons:
                self._rooms[room.site.name] = room
            elif {reason.why for reason in reasons} == {Why.LEAVING}:
                self._leaving[room.site.name] = room
        self._taken: dict[str, list[Gpus]] = {
            name: self._kept(room) for name, room in self._rooms.items()
        }

    def _kept(self, room: _Room) -> list[Gpus]:
        held = room.site.held.get(self._wanted.name, ())
        return [gpus for gpus in held if len(gpus) == self._wanted.placement.gpus]

    def place(self) -> Placed:
        missing = self._everywhere() if self._wanted.everywhere else self._in_all()
        nodes = {name: tuple(taken) for name, taken in self._taken.items() if taken}
        self._passed += self._not_taken(nodes, missing)
        order = {reason: index for index, reason in enumerate(Why)}
        return Placed(
            deployment=self._wanted.name,
            nodes=nodes,
            missing=missing,
            passed=tuple(sorted(self._passed, key=lambda p: (p.node, order[p.why]))),
        )

    def _not_taken(self, nodes: Mapping[str, object], missing: int) -> Iterator[Passed]:
        for name, room in self._rooms.items():
            if name in nodes and not missing:
                continue
            if not room.has_room(self._wanted):
                yield room.full(self._wanted)
            elif name not in nodes:
                detail = f"would do; it runs on {', '.join(sorted(nodes))}"
                yield Passed(name, Why.NOT_NEEDED, detail)

    def _everywhere(self) -> int:
        replicas = self._wanted.replicas
        missing = 0
        for name, room in self._rooms.items():
            taken = self._taken[name] = self._taken[name][:replicas]
            while len(taken) < replicas and self._add(name, room):
                pass
            missing += replicas - len(taken)
        if not self._rooms:
            missing = replicas
            for name, room in self._leaving.items():
                self._taken[name] = self._kept(room)[:replicas]
                missing = 0
        return missing

    def _in_all(self) -> int:
        while self._count() > self._wanted.replicas:
            self._taken[self._fullest()].pop()
        while self._count() < self._wanted.replicas:
            name = self._emptiest()
            if name is None:
                break
            self._add(name, self._rooms[name])
        self._even_out()
        self._keep_on_leaving()
        return self._wanted.replicas - self._count()

    def _keep_on_leaving(self) -> None:
        for name, room in self._leaving.items():
            lacking = self._wanted.replicas - self._count()
            self._taken[name] = self._kept(room)[:lacking]

    def _even_out(self) -> None:
        """Move replicas from where two more are than elsewhere they could be."""
        while (to := self._emptiest()) is not None:
            source = self._fullest()
            if len(self._taken[source]) < len(self._taken[to]) + 2:
                return
            self._add(to, self._rooms[to])
            self._taken[source].pop()

    def _add(self, name: str, room: _Room) -> bool:
        gpus = room.take(self._wanted)
        if gpus is None:
            return False
        self._taken[name].append(gpus)
        return True

    def _count(self) -> int:
        return sum(map(len, self._taken.values()))

    def _fullest(self) -> str:
        return max(self._taken, key=lambda n: (len(self._taken[n]), -self._rank(n)))

    def _emptiest(self) -> str | None:
        """Return the node that one more replica goes to; None: there is no room."""
        with_room = [n for n, r in self._rooms.items() if r.has_room(self._wanted)]
        return min(
            with_room,
            key=lambda n: (len(self._taken[n]), -self._rank(n)),
            default=None,
        )

    def _rank(self, node: str) -> int:
        return rank(self._wanted.name, node)


def _reasons(
    wanted: Wanted, site: Site, placed: Mapping[str, Placed]
) -> Iterator[Passed]:
    """Yield why a node cannot be taken, however empty it is."""
    for role in sorted(wanted.roles - site.roles, key=lambda role: role.value):
        yield Passed(site.name, Why.ROLE, f"lacks the role {role.value}")
    for name, allowed in wanted.placement.labels.items():
        if site.labels.get(name) not in allowed:
            yield Passed(site.name, Why.LABEL, _mislabelled(site, name, allowed))
    other = wanted.placement.colocate_with
    if other is not None and (
        other not in placed or site.name not in placed[other].nodes
    ):
        yield Passed(site.name, Why.COLOCATION, f"does not run {other!r}")
    refusal = site.refusals.get(wanted.name)
    if refusal is not None:
        yield Passed(site.name, Why.REFUSED, refusal)
    if site.leaving:
        yield Passed(site.name, Why.LEAVING, "is leaving")


def _mislabelled(site: Site, name: str, allowed: Collection[str]) -> str:
    wanted = " or ".join(repr(text) for text in allowed)
    found = site.labels.get(name)
    if found is None:
        return f"has no label {name!r}; it must be {wanted}"
    return f"has the label {name!r} = {found!r}, not {wanted}"
