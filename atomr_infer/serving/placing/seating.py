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

import trio

from atomr_infer.errors import ConfigError
from atomr_infer.model.placement import Placement
from atomr_infer.policy.placement import Gpus, Placed, Site, Wanted, plan
from atomr_infer.serving.inventory import Inventory, read_inventory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

_HERE = "this machine"


def placed_here(
    deployments: Iterable[Deployment],
    inventory: Inventory,
    held: Mapping[str, Sequence[Gpus]] | None = None,
) -> dict[str, Placed]:
    """Return which GPUs of this machine the replicas of deployments have.

    Args:
        deployments: all that shall run here.
        inventory: what there is.
        held: the GPUs of each replica that runs, by deployment.

    Returns:
        Those that ask for GPUs, by name.
    """
    site = Site(
        name=_HERE,
        gpus_gib=tuple(gpu.memory_gib for gpu in inventory.gpus),
        held={name: tuple(gpus) for name, gpus in (held or {}).items()},
    )
    return plan(map(_wanted, filter(counts, deployments)), [site])


def counts(deployment: Deployment) -> bool:
    """Whether a deployment asks for GPUs of this machine."""
    return deployment.placement.gpus > 0 and deployment.ray is None


def _wanted(deployment: Deployment) -> Wanted:
    # What a node must be besides is for those that may choose.
    placement = Placement(
        gpus=deployment.placement.gpus,
        gpu_memory_gib=deployment.placement.gpu_memory_gib,
    )
    replicas = deployment.serving.replicas
    return Wanted(name=deployment.name, replicas=replicas, placement=placement)


def refuse_missing(placed: Placed, inventory: Inventory) -> None:
    """Refuse a deployment that has no room.

    Raises:
        ConfigError: it has none; with what there is.
    """
    if not placed.missing:
        return
    there = ", ".join(f"{g.name} with {g.memory_gib:g} GiB" for g in inventory.gpus)
    raise ConfigError(
        f"deployment {placed.deployment!r} cannot be placed: {placed.obstacles}, for "
        f"{placed.missing} of its replicas (GPUs here: {there or 'none'}; "
        f"{inventory.note}); ask for fewer in [deployment.placement], or say with "
        "gpu_memory_gib how much of one each takes"
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
        self._coming: list[str] = []

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

    @contextmanager
    def seated(self, *deployments: Deployment) -> Iterator[None]:
        """Give the replicas of deployments their GPUs; take them back if it fails.

        Args:
            deployments: new ones, and others under names that are served.

        Raises:
            ConfigError: one of them has no room; nothing was changed.
        """
        seats, inventory = self._serving.gpu_seats, self._inventory
        if inventory is None or not inventory.is_known:
            yield
            return
        self._let_go()
        before = {each.name: seats.given.get(each.name, ()) for each in deployments}
        wanted = {**self._serving.deployments, **{d.name: d for d in deployments}}
        none = {each.name for each in deployments if not counts(each)}
        held = {name: gpus for name, gpus in seats.given.items() if name not in none}
        placed = placed_here(wanted.values(), inventory, held)
        for each in deployments:
            if counts(each):
                refuse_missing(placed[each.name], inventory)
        for each in deployments:
            found = placed.get(each.name)
            seats.give(each.name, () if found is None else found.nodes[_HERE])
        self._coming += before
        try:
            yield
        except BaseException:
            for name, gpus in before.items():
                seats.give(name, gpus)
            raise
        finally:
            for name in before:
                self._coming.remove(name)

    def _let_go(self) -> None:
        """Take back what nobody has any more."""
        serving = self._serving
        there = {*serving.deployments, *serving.draining, *self._coming}
        for name in serving.gpu_seats.given.keys() - there:
            serving.gpu_seats.give(name, ())
