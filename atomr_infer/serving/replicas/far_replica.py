"""A replica of another node, as this one sees it.

Its node writes that it is there; how much it has to do comes some times a second, and
what this node has sent since then is counted on top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

from atomr.cluster.peers import Peers
from atomr.crdt.origin import Origin
from atomr_infer.serving.replicas.replica import Phase, ReplicaState
from atomr_infer.wire.nodes.loads import Load

if TYPE_CHECKING:
    from atomr.http2 import Link


@attrs.define(eq=False)
class FarReplica:
    """One replica of another node.

    Attributes:
        node: whose it is, in its present life.
        deployment: of which deployment.
        number: which of the deployment's.
        phase: whether its engine can run.
        told: its load, as it was told last.
        told_at: when, in trio's clock; None: it has not been.
        turn: how often it was told.
        sent: requests of this node that it was not told with.
        sent_tokens: about how many tokens these have.
    """

    node: Origin
    deployment: str
    number: int
    _peers: Peers = attrs.field(repr=False)
    phase: Phase = Phase.LOADING
    told: Load = attrs.field(
        default=attrs.Factory(
            lambda self: Load(self.deployment, self.number), takes_self=True
        )
    )
    told_at: float | None = None
    turn: int = 0
    sent: int = 0
    sent_tokens: int = 0

    is_local = False

    @property
    def label(self) -> str:
        """Its node and number: the same on all nodes."""
        return f"{self.node.name}/{self.number}"

    @property
    def link(self) -> Link | None:
        """The way to it; None: there is none now."""
        return self._peers.link(self.node)

    @property
    def ready(self) -> bool:
        """True when it can be asked, and its engine can run."""
        return self.phase is Phase.SERVING and self.link is not None

    @property
    def asleep(self) -> bool:
        """True when a request would have its engine started."""
        return self.phase is Phase.ASLEEP and self.link is not None

    @property
    def outstanding(self) -> int:
        """Requests running, waiting and on their way from here."""
        return self.told.outstanding + self.sent

    @property
    def tokens(self) -> int:
        """About how many tokens these have."""
        return self.told.tokens + self.sent_tokens

    @property
    def limit(self) -> int:
        """How many it runs at once."""
        return self.told.limit

    @property
    def first_s(self) -> float:
        """Seconds to the first words of late, as its node measures; 0: not known."""
        return self.told.first_s

    def tell(self, load: Load, now: float) -> None:
        """Take its load; what was sent to it is counted in it."""
        self.told, self.told_at = load, now
        self.turn += 1
        self.sent = self.sent_tokens = 0

    def send(self, tokens: int) -> int:
        """Count a request that goes there; returns the turn for :meth:`back`."""
        self.sent += 1
        self.sent_tokens += tokens
        return self.turn

    def back(self, turn: int, tokens: int) -> None:
        """Count it no more, where its node has not counted it since."""
        if turn == self.turn:
            self.sent -= 1
            self.sent_tokens -= tokens


AnyReplica: TypeAlias = ReplicaState | FarReplica
"""A replica of this node or of another one."""
