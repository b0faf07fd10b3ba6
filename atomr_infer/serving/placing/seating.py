"""Which GPUs the replicas of a node without others have, and whether there are enough.

In a cluster a plan of all nodes says so (:mod:`~atomr_infer.serving.placing.picture`).
A node alone makes the same plan of itself: what runs keeps its GPUs, and what has no
room is refused before it starts, with what there is.  Engines on Ray are Ray's affair.

Where NVIDIA's library is not installed nobody knows what there is: then nothing is
counted, as if no GPUs were asked for, and that is said.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import ConfigError, NotReadyError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.placement import Placement
from atomr_infer.policy.lifecycle.placement import (
    Gpus,
    Passed,
    Placed,
    Site,
    Wanted,
    Why,
    plan,
)
from atomr_infer.policy.lifecycle.replaced import keeps_engine
from atomr_infer.serving.inventory import Inventory, read_inventory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

HERE = "this machine"
"""What a node without others is called in its plan."""

# Shares are decimal numbers: what fits must not fail for the last bit of a sum.
_ROUNDING_GIB = 1e-6


@attrs.frozen
class Taken:
    """The GPUs that a deployment has.

    Attributes:
        deployment: what has them, or is about to.
        gpus: those of each of its replicas.
    """

    deployment: Deployment
    gpus: tuple[Gpus, ...]


class NoRoomError(ConfigError):
    """A deployment asks for more of the GPUs than is free.

    Attributes:
        deployment: its name.
    """

    def __init__(self, deployment: str, message: str) -> None:
        super().__init__(message)
        self.deployment = deployment


def counts(deployment: Deployment) -> bool:
    """Whether a deployment asks for GPUs of this machine."""
    return deployment.placement.gpus > 0 and deployment.ray is None


def placed_here(
    deployments: Iterable[Deployment],
    inventory: Inventory,
    *,
    taken: Mapping[str, Taken] | None = None,
    leaving: Iterable[Taken] = (),
) -> dict[str, Placed]:
    """Return which GPUs of this machine the replicas of deployments have.

    One that changes has its own, unless another engine is opened for it that takes
    more or less of each.  What one of them leaves another one of them may have.

    Args:
        deployments: those that shall run, besides the others or in place of theirs.
        inventory: what there is.
        taken: what runs or is on its way, by name.
        leaving: what still runs although another one is on its way in its place.

    Returns:
        Those of them that ask for GPUs, by name.
    """
    old = taken or {}
    asked = {each.name: each for each in deployments}
    # No deployment has a blank in its name.
    others = {f"{each.deployment.name} {n}": each for n, each in enumerate(leaving)}
    others |= {name: each for name, each in old.items() if name not in asked}
    wanted = [
        _wanted(name, each.deployment, len(each.gpus)) for name, each in others.items()
    ]
    held = {name: each.gpus for name, each in others.items()}
    for name, each in asked.items():
        if counts(each):
            wanted.append(_wanted(name, each, each.serving.replicas))
            if name in old and not _moves(old[name].deployment, each):
                held[name] = old[name].gpus
    total = tuple(gpu.memory_gib for gpu in inventory.gpus)
    placed = plan(wanted, [Site(name=HERE, gpus_gib=total, held=held)])
    full = _overfull(placed, wanted, total)
    for name in asked.keys() & held.keys():
        if _grows(old[name].deployment, asked[name]):
            placed[name] = _refused_on(full, placed[name])
    return {name: placed[name] for name in asked if name in placed}


def _wanted(name: str, deployment: Deployment, replicas: int) -> Wanted:
    # What a node must be besides is for those that may choose.
    placement = Placement(
        gpus=deployment.placement.gpus,
        gpu_memory_gib=deployment.placement.gpu_memory_gib,
    )
    return Wanted(name=name, replicas=replicas, placement=placement)


def _needs(deployment: Deployment) -> tuple[int, float | None]:
    return deployment.placement.gpus, deployment.placement.gpu_memory_gib


def _moves(now: Deployment, wanted: Deployment) -> bool:
    """Whether one that becomes another may have other GPUs."""
    if _needs(now) == _needs(wanted):
        return False
    return not keeps_engine(now, wanted, is_client=False)


def _grows(now: Deployment, wanted: Deployment) -> bool:
    """Whether one that becomes another takes more of each GPU."""
    before, after = now.placement.gpu_memory_gib, wanted.placement.gpu_memory_gib
    return before is not None and (after is None or after > before)


def _overfull(
    placed: Mapping[str, Placed], wanted: Iterable[Wanted], total: tuple[float, ...]
) -> frozenset[int]:
    """Return the GPUs of which more is taken than there is."""
    free = list(total)
    for each in wanted:
        share = each.placement.gpu_memory_gib
        for gpus in placed[each.name].nodes.get(HERE, ()):
            for number in gpus:
                free[number] -= total[number] if share is None else share
    return frozenset(n for n, left in enumerate(free) if left < -_ROUNDING_GIB)


def _refused_on(full: frozenset[int], placed: Placed) -> Placed:
    """Return that the replicas on those GPUs lack room: their engines stay there."""
    stay = [gpus for gpus in placed.nodes[HERE] if not full.intersection(gpus)]
    lacking = len(placed.nodes[HERE]) - len(stay)
    if not lacking:
        return placed
    detail = "its engine keeps its GPUs, and others have what it would take more"
    return attrs.evolve(
        placed,
        nodes={HERE: tuple(stay)} if stay else {},
        missing=placed.missing + lacking,
        passed=(*placed.passed, Passed(HERE, Why.GPU_MEMORY, detail)),
    )


def refuse_missing(placed: Placed, inventory: Inventory) -> None:
    """Refuse a deployment that has no room.

    Raises:
        NoRoomError: it has none; with what there is.
    """
    if not placed.missing:
        return
    there = ", ".join(f"{g.name} with {g.memory_gib:g} GiB" for g in inventory.gpus)
    raise NoRoomError(
        placed.deployment,
        f"deployment {placed.deployment!r} cannot be placed: {placed.obstacles}, for "
        f"{placed.missing} of its replicas (GPUs here: {there or 'none'}; "
        f"{inventory.note}); ask for fewer in [deployment.placement], or say with "
        "gpu_memory_gib how much of one each takes; what goes has its GPUs until what "
        "comes in its place serves",
    )


class Seating:
    """The GPUs of a node without others, and who has them."""

    def __init__(self, serving: Serving, environ: Mapping[str, str]) -> None:
        """Look for GPUs when the first deployment asks for some.

        Args:
            serving: the node's tree.
            environ: where ``CUDA_VISIBLE_DEVICES`` may stand.
        """
        self._serving = serving
        self._environ = environ
        self._inventory: Inventory | None = None
        self._taken: dict[str, Taken] = {}
        self._coming: list[Deployment] = []
        self._leaving: list[Taken] = []

    async def look(self, deployments: Iterable[Deployment]) -> None:
        """Know which GPUs there are, where one of these asks for some.

        Cancellation: the driver is asked again the next time.
        """
        if self._inventory is not None or not any(map(counts, deployments)):
            return
        # The driver may take its time.
        self._have(await trio.to_thread.run_sync(read_inventory, self._environ))

    def _have(self, found: Inventory) -> None:
        if self._inventory is not None:
            return  # who asked at the same time was quicker
        self._inventory = found
        self._serving.gpu_seats.have(gpu.uuid for gpu in found.gpus)
        if not found.is_known:
            log.warning("GPUs are not counted: %s", found.note)

    def explain(self, deployment: Deployment) -> Placed | None:
        """Return where the replicas of a deployment would be; changes nothing.

        Returns:
            None: it asks for no GPU, or nobody knows yet which there are.
        """
        inventory = self._inventory
        if inventory is None or not inventory.is_known or not counts(deployment):
            return None
        self._let_go()
        return placed_here(
            [deployment], inventory, taken=self._taken, leaving=self._leaving
        )[deployment.name]

    @contextmanager
    def seated(self, *deployments: Deployment) -> Iterator[None]:
        """Give the replicas of deployments their GPUs, while they start.

        What is not served in the end gives them back, or has those of before.

        Args:
            deployments: new ones, and others under names that are served.  One that
                is on its way with others already has what they were given.

        Raises:
            NoRoomError: one of them has no room; nothing was changed.
            NotReadyError: another one of a name is on its way.
        """
        inventory = self._inventory
        if inventory is None or not inventory.is_known:
            yield
            return
        self._let_go()
        given = self._given([d for d in deployments if self._is_new(d)], inventory)
        before = {name: self._taken.get(name) for name in given}
        left = [taken for taken in map(_left, before.values(), given.values()) if taken]
        coming = [each.deployment for each in given.values()]
        for name, each in given.items():
            self._give(name, each)
        self._coming += coming
        self._leaving += left
        try:
            yield
        except BaseException:
            for name, each in given.items():
                # It may have stayed although it failed.
                stays = self._serving.deployments.get(name) == each.deployment
                if self._taken.get(name) in (each, None) and not stays:
                    self._give(name, before[name])
            raise
        finally:
            for deployment in coming:
                self._coming.remove(deployment)
            for taken in left:
                self._leaving.remove(taken)

    def _given(
        self, deployments: Iterable[Deployment], inventory: Inventory
    ) -> dict[str, Taken]:
        """Return what deployments shall have.

        Raises:
            NoRoomError: one of them has no room.
        """
        asked = tuple(deployments)
        placed = placed_here(asked, inventory, taken=self._taken, leaving=self._leaving)
        for found in placed.values():
            refuse_missing(found, inventory)
        nodes = {name: found.nodes[HERE] for name, found in placed.items()}
        return {each.name: Taken(each, nodes.get(each.name, ())) for each in asked}

    def _is_new(self, wanted: Deployment) -> bool:
        """Whether nobody has given a deployment its GPUs yet.

        Raises:
            NotReadyError: another one of its name is on its way.
        """
        name = wanted.name
        coming = [each for each in self._coming if each.name == name]
        if not coming or self._serving.deployments.get(name) in coming:
            return counts(wanted) or name in self._taken
        if wanted not in coming:
            raise NotReadyError(f"another {name} is on its way; try again")
        return False

    def _give(self, name: str, taken: Taken | None) -> None:
        if taken is not None and taken.gpus:
            self._taken[name] = taken
            self._serving.gpu_seats.give(name, taken.gpus)
        else:
            self._taken.pop(name, None)
            self._serving.gpu_seats.give(name, ())

    def _let_go(self) -> None:
        """Take back what nobody has any more."""
        serving = self._serving
        coming = {each.name for each in self._coming}
        there = {*serving.deployments, *serving.draining, *coming}
        for name in self._taken.keys() - there:
            self._give(name, None)


def _left(before: Taken | None, after: Taken) -> Taken | None:
    """Return what engines still have until others have taken their place."""
    if before is None:
        return None
    gpus = before.gpus
    if counts(after.deployment) and not _moves(before.deployment, after.deployment):
        gpus = gpus[len(after.gpus) :]
    return Taken(before.deployment, gpus) if gpus else None
