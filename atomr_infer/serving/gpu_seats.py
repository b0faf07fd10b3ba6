"""Which GPUs each replica on this node has.

A plan gives each replica GPUs by their number on its node
(:mod:`atomr_infer.policy.lifecycle.placement`), and two replicas of one node must not
take the same ones: an engine that sees all of them takes the first.  So the process of
an engine sees those of its replica alone, by their UUIDs, which mean the same in
whatever order
CUDA numbers them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from atomr_infer.policy.lifecycle.placement import Gpus


class GpuSeats:
    """The GPUs of one node, and who sits where.

    >>> seats = GpuSeats()
    >>> seats.have(["GPU-a", "GPU-b"])
    >>> seats.give("qwen", [(0,), (1,)])
    >>> seats.of("qwen", 1), seats.of("else", 0)
    (('GPU-b',), ())
    """

    def __init__(self) -> None:
        self._uuids: tuple[str, ...] = ()
        self._given: dict[str, tuple[Gpus, ...]] = {}

    @property
    def given(self) -> Mapping[str, tuple[Gpus, ...]]:
        """The GPUs of each replica, by deployment, as of now."""
        return dict(self._given)

    def have(self, uuids: Iterable[str]) -> None:
        """Take which GPUs there are, in the order in which a plan numbers them."""
        self._uuids = tuple(uuids)

    def give(self, deployment: str, gpus: Sequence[Gpus]) -> None:
        """Take the GPUs of each replica of a deployment; none: it has no replica."""
        if gpus:
            self._given[deployment] = tuple(gpus)
        else:
            self._given.pop(deployment, None)

    def of(self, deployment: str, replica: int) -> tuple[str, ...]:
        """Return the GPUs of a replica, by their UUIDs.

        Returns:
            Nothing, where none were given to it: it sees what the node sees.
        """
        given = self._given.get(deployment, ())
        if replica >= len(given):
            return ()
        # One that is out of the driver's sight now would hide those behind it.
        return tuple(self._uuids[n] for n in given[replica] if n < len(self._uuids))
