"""Who asks: the virtual key that a request showed, and its team.

A request carries it from the gateway to whoever must know: limits and budgets, which
are a key's and its team's, and the queue, which is fair between them.  A request that
showed no virtual key is nobody's.

Pure.
"""

from __future__ import annotations

import attrs

from atomr_infer.model.virtual_key import VirtualKey


@attrs.frozen
class Asker:
    """A virtual key, as far as a request's way is concerned.

    Attributes:
        key: its id; never its secret.
        team: the name of its team; None: it has none.
        weight: its share beside the other keys of its team, or beside teams.
        team_weight: its team's share beside other teams.
    """

    key: str
    team: str | None = None
    weight: float = 1.0
    team_weight: float = 1.0

    @property
    def shares(self) -> tuple[tuple[str, float], ...]:
        """Whose turn it takes in a queue, and with which weight, from the top down.

        >>> Asker("key_1", team="web", team_weight=2.0).shares
        (('team web', 2.0), ('key_1', 1.0))
        """
        own = (self.key, self.weight)
        if self.team is None:
            return (own,)
        return (f"team {self.team}", self.team_weight), own


@attrs.frozen
class Visitor:
    """Who was let in by a gateway.

    Attributes:
        owner: whose is what is made for it: a digest of a configured key, or the name
            of a virtual one; b"" where no key is needed.
        key: the virtual key that it showed; None: none.
        asker: the same, for limits, budgets and queues.
    """

    owner: bytes = attrs.field(default=b"", repr=False)
    key: VirtualKey | None = None
    asker: Asker | None = None

    @property
    def priority(self) -> int:
        """That of its requests, which say nothing else; they may say less."""
        return 0 if self.key is None else self.key.priority


ANYBODY = Visitor()
"""Who comes where no key is needed."""
