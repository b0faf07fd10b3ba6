"""What nodes tell each other of swaps: the entries of replicated maps.

===============  ============  =========================================
map              written by    holds
===============  ============  =========================================
``swaps``        who leads     a :class:`SwapRecord` for each deployment
``swap counts``  each its own  how many requests of a swap's, by its id,
                               ended here, and how many of them failed
``swap ends``    anyone        the id of a swap that is to go back, by
                               the deployment's name
===============  ============  =========================================

Pure.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec

from atomr_infer.policy.lifecycle.hot_swap import Phase

SWAPS: Final = "swaps"
COUNTS: Final = "swap counts"
ENDS: Final = "swap ends"

_ENDED = frozenset({Phase.SWAPPED, Phase.ROLLED_BACK})


@attrs.frozen(kw_only=True)
class SwapStatus:
    """How a swap stands.

    Attributes:
        deployment: which one is taken over.
        phase: how far it is.
        share: of the requests, that the new one has.
        requests: that it was asked in this step.
        failures: those of them that failed by its fault.
        reason: why it goes back, or went; "": it does not.
        node: the node that leads it.
        id: of this swap; no other has it.
    """

    deployment: str
    phase: Phase = Phase.LOADING
    share: float = 0.0
    requests: int = 0
    failures: int = 0
    reason: str = ""
    node: str = ""
    id: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.phase in _ENDED

    @property
    def in_words(self) -> str:
        """How far it is, for a line of the log.

        >>> SwapStatus(deployment="m", phase=Phase.SHIFTING, share=0.25).in_words
        'shifting, 25% of the requests'
        """
        words = self.phase.value
        if self.phase is Phase.SHIFTING:
            words += f", {self.share:.0%} of the requests"
        return f"{words}: {self.reason}" if self.reason else words


class SwapRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A swap, as all nodes know it.

    Attributes:
        id: of this one; no other has it.
        node: which node leads it.
        life: of that node's process; after a restart it is another.
        phase: see :class:`SwapStatus`, as the next four.
        share: see there.
        requests: see there.
        failures: see there.
        reason: see there.
        before: the deployment that is taken over, as a table; empty where the node
            has no others: nobody can lead it on.
        after: the digest of the table that comes.
        asked: digests of what the swap itself had served under the name of late; what
            is none of them somebody else wants.
    """

    id: str
    node: str
    life: str
    phase: Phase = Phase.LOADING
    share: float = 0.0
    requests: int = 0
    failures: int = 0
    reason: str = ""
    before: dict[str, Any] = {}
    after: str = ""
    asked: tuple[str, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.phase in _ENDED

    def status(self, deployment: str) -> SwapStatus:
        """Return how the swap of a deployment stands."""
        return SwapStatus(
            deployment=deployment,
            phase=self.phase,
            share=self.share,
            requests=self.requests,
            failures=self.failures,
            reason=self.reason,
            node=self.node,
            id=self.id,
        )

    def at(self, status: SwapStatus) -> SwapRecord:
        """Return the record of a swap that stands so."""
        return msgspec.structs.replace(
            self,
            phase=status.phase,
            share=status.share,
            requests=status.requests,
            failures=status.failures,
            reason=status.reason,
        )
