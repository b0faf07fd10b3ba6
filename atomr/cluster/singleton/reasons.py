"""Why a singleton does not run here, in words for people.

Pure.
"""

from __future__ import annotations

import attrs

from atomr.gossip.voting import Phase, Terms

_DOING = {
    Phase.HOLDING: "it is being started here",
    Phase.STOPPING: "it is being stopped here",
}


@attrs.frozen
class Standing:
    """What a node knows of a singleton.

    Attributes:
        terms: of its lease.
        node: the node's name.
        stands: whether the node would run it.
        phase: what its candidacy is about.
        holder: who runs it; empty: not known.
        seen: who had the lease when it was last heard of; empty: nobody.
        up: the voters that can be reached, this node among them.
        differ: voters with other terms.
        problem: what went wrong here the last time; empty: nothing.
    """

    terms: Terms
    node: str
    stands: bool
    phase: Phase
    holder: str
    seen: str
    up: tuple[str, ...]
    differ: tuple[str, ...]
    problem: str

    def why(self) -> str:
        """Return why it does not run here; or that it does."""
        if self.holder == self.node:
            stops = self.phase is not Phase.HOLDING
            return "it is being stopped here" if stops else "it runs here"
        if self.holder:
            return f"it runs on {self.holder}"
        return self._nowhere() + (f"; {self.problem}" if self.problem else "")

    def _nowhere(self) -> str:
        if self.phase in _DOING:
            return _DOING[self.phase]
        if self.differ:
            return f"other terms are in force on {_list(self.differ)}"
        if len(self.up) < self.terms.majority:
            return (
                f"no majority: of the voters {_list(self.terms.voters)} only"
                f" {_list(self.up) or 'none'} can be reached;"
                f" {self.terms.majority} are needed"
            )
        if not self.stands:
            return "this node does not run it, and nobody says to run it"
        if self.seen and self.seen != self.node:
            return f"the lease of {self.seen} has not ended, as far as is known"
        return "the voters are being asked"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)
