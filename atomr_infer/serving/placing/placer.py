"""The placer: has this node run its share of the cluster's deployments.

It draws a picture of what all nodes have said whenever one says something, works out
the plan, and gives each :class:`~atomr_infer.serving.placing.share.Share` its aim.
Nobody is asked, and nobody leads: the others do the same with the same picture.

A node that has just started does not know yet who else is there, and what they run.
It waits for all voters and a second more, or for ``settle_s`` where most of them are
there, and have been for a second, before it starts what runs a number of times in all;
one that sees no majority waits :data:`MINORITY_TIMES` as long, as it rather is slow
than all others are gone.  What runs on every node needs no such patience.
"""

from __future__ import annotations

import logging
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from atomr.cluster.replicator import NotReplicatingError
from atomr.errors import ReceiveTimeoutError
from atomr.process import receive
from atomr_infer.policy.lifecycle.deployment_state import State
from atomr_infer.policy.lifecycle.placement import Wanted
from atomr_infer.serving.placing.share import Aim, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atomr_infer.policy.lifecycle.placement import Gpus
    from atomr_infer.serving.placing.catalogue import Catalogue
    from atomr_infer.serving.placing.picture import Known, Picture
    from atomr_infer.serving.placing.records import Facts
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

SETTLE_S = 5.0
"""Long enough to dial the seeds and be told of all members, twice."""

MINORITY_TIMES = 3
"""How many times as long a node without a majority of the voters waits for them."""

_LOOK_EVERY_S = 1.0
_GATHER_S = 0.02

_HEAR_S = 1.0
"""How long those whom a node has met may take to tell it what they run."""

_ALL_KNOW_S = 1.0
"""How long a replica that another one takes over from stays: until nobody asks it."""


class Met(Enum):
    """How many of the voters a node sees, itself among them."""

    FEW = "few"
    MOST = "most"
    ALL = "all"

    @classmethod
    def of(cls, there: int, voters: int) -> Met:
        """Return what so many of the voters are.

        >>> [Met.of(there, 3).value for there in (1, 2, 3)]
        ['few', 'most', 'all']
        >>> Met.of(1, 2).value
        'few'
        """
        if there == voters:
            return cls.ALL
        return cls.MOST if 2 * there > voters else cls.FEW


class Placer:
    """The process' state.

    Attributes:
        has_met: whether it knows who else is there, as far as that can be known.
        looked: set when it looks at what is new the next time; then it is another.
    """

    def __init__(
        self,
        serving: Serving,
        catalogue: Catalogue,
        facts: Facts,
        *,
        met: Callable[[], Met],
        settle_s: float = SETTLE_S,
    ) -> None:
        """Make one; its process runs :meth:`run`.

        Args:
            serving: the node's serving tree.
            catalogue: the cluster's deployments.
            facts: what the node is.
            met: says who is there of those who should always be.
            settle_s: how long all of them are waited for, in seconds.
        """
        self._serving = serving
        self._catalogue = catalogue
        self._facts = facts
        self._met = met
        self._settle_s = settle_s
        self._shares: dict[str, Share] = {}
        self._taken_over_at: dict[str, float] = {}
        self._picture: Picture | None = None
        # Until then it may not know of half of what others would have it serve.
        self.has_met = serving.has_met = False
        self.looked = trio.Event()
        self._started_at = 0.0
        self._most_at: float | None = None
        self._met_at: float | None = None

    async def run(self) -> None:
        """Follow the catalogue; never returns.

        Cancellation: what runs goes on running.
        """
        self._started_at = trio.current_time()
        self._shares = {}
        async with trio.open_nursery() as nursery:
            for name in self._serving.elsewhere:
                self._share(name, nursery)  # this is a restart
            while True:
                try:
                    self._follow(nursery)
                except NotReplicatingError:
                    log.info("the replicator is away; what runs goes on")
                await self._news()

    def leave(self) -> None:
        """Tell all nodes that this one is about to go."""
        self._facts = msgspec.structs.replace(self._facts, leaving=True)
        self._catalogue.tell(self._facts)

    def stay(self) -> None:
        """Tell all nodes that this one does not go."""
        self._facts = msgspec.structs.replace(self._facts, leaving=False)
        self._catalogue.tell(self._facts)

    def _follow(self, nursery: trio.Nursery) -> None:
        self._catalogue.subscribe()
        self._catalogue.tell(self._facts)
        self._settle()
        picture = self._catalogue.draw(trio.current_time())
        self._shares = {n: s for n, s in self._shares.items() if not s.is_over}
        self._picture = picture
        for name, share in self._shares.items():
            share.hear(picture.claims.get(name, {}).get(picture.me))
        for name in picture.catalogue.keys() | self._shares.keys():
            self._aim(name, picture, nursery)
        self.looked.set()
        self.looked = trio.Event()

    def _settle(self) -> None:
        if self.has_met:
            return
        now = trio.current_time()
        met = self._met()
        self._most_at = _since(self._most_at, now, holds=met is not Met.FEW)
        self._met_at = _since(self._met_at, now, holds=met is Met.ALL)
        waited_s = now - self._started_at
        if met is Met.FEW:
            self.has_met = waited_s >= MINORITY_TIMES * self._settle_s
        else:
            # Those who came late are heard, however long it has waited for them.
            at = self._met_at if met is Met.ALL else self._most_at
            has_heard = at is not None and now - at >= _HEAR_S
            is_enough = met is Met.ALL or waited_s >= self._settle_s
            self.has_met = has_heard and is_enough
        self._serving.has_met = self.has_met

    def _aim(self, name: str, picture: Picture, nursery: trio.Nursery) -> None:
        known = picture.catalogue.get(name)
        share = self._shares.get(name)
        if known is None:
            if share is not None:
                share.take(Aim(None))
            return
        if known.deployment is None:
            return  # another version wrote it: what runs goes on
        if share is None:
            share = self._share(name, nursery)
        share.take(self._wanted(name, known, picture, share))

    def _wanted(self, name: str, known: Known, picture: Picture, share: Share) -> Aim:
        gpus = picture.share(name)
        now = share.gpus
        if len(gpus) < len(now):
            # One that failed has nothing that another would have to take over.
            failed = share.state is State.FAILED
            waits = not failed and not self._may_end(name, picture)
        else:
            waits = len(gpus) > len(now) and not self._may_begin(known)
        if waits and share.aim is not None and _is_other_size(now, known):
            # It cannot be what it shall be with the GPUs that it has.
            if not gpus:
                return share.aim
            waits = False
        if waits:
            gpus = now
        else:
            self._taken_over_at.pop(name, None)
        return Aim(known.deployment, gpus, known.entry.digest)

    def _may_end(self, name: str, picture: Picture) -> bool:
        """Whether those who take over serve, and all nodes can know of it."""
        if not picture.may_end(name):
            self._taken_over_at.pop(name, None)
            return False
        now = trio.current_time()
        return now - self._taken_over_at.setdefault(name, now) >= _ALL_KNOW_S

    def _may_begin(self, known: Known) -> bool:
        if self.has_met or known.deployment is None:
            return self.has_met
        wanted = Wanted(
            name=known.deployment.name,
            replicas=1,
            placement=known.deployment.placement,
            remote=known.entry.remote,
        )
        return wanted.everywhere

    def _share(self, name: str, nursery: trio.Nursery) -> Share:
        tell = partial(self._catalogue.claim, name)
        share = Share(name, self._serving, tell, self._names)
        self._shares[name] = share
        nursery.start_soon(share.work)
        return share

    def _names(self) -> frozenset[str]:
        return (
            frozenset() if self._picture is None else frozenset(self._picture.catalogue)
        )

    async def _news(self) -> None:
        """Wait until something is new, and for what comes right behind it."""
        try:
            await receive(timeout_s=_LOOK_EVERY_S)
        except ReceiveTimeoutError:
            return
        await trio.sleep(_GATHER_S)
        try:
            while True:
                await receive(timeout_s=0)
        except ReceiveTimeoutError:
            return


def _since(before: float | None, now: float, *, holds: bool) -> float | None:
    """Return since when something holds that did since ``before``; None: not now."""
    if not holds:
        return None
    return now if before is None else before


def _is_other_size(gpus: Sequence[Gpus], known: Known) -> bool:
    """Whether a replica shall have another number of GPUs than these."""
    assert known.deployment is not None, "looked at before"
    wanted = known.deployment.placement.gpus
    return any(len(group) != wanted for group in gpus)
