"""The other nodes, as the services of a cluster see them.

A peer is *up* while there is a link with it and the membership holds it alive or
suspect.  It is named by its :class:`~atomr.crdt.origin.Origin`, so a node that
restarts is another peer: its old life goes down before its new one comes up.

A link is missed sooner than a death is certain: whoever waits for a peer's answer
looks at :class:`PeerDown`, and whoever needs to know how the membership judges looks
at :class:`MemberChanged`.  Neither says that the other node has stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar, overload

import attrs

from atomr.crdt.origin import Origin
from atomr.gossip.membership import Member
from atomr.http2 import Lane, Link

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import UnionType

R = TypeVar("R")


@attrs.frozen
class PeerUp:
    """There is a link with a node that is taken to run.

    Attributes:
        peer: the node, in this life.
    """

    peer: Origin


@attrs.frozen
class PeerDown:
    """That is so no longer; the node may run on, out of reach.

    Attributes:
        peer: the node, in the life that was up.
        reason: one word: of ``atomr.http2.Reason`` where the link ended, ``dead`` or
            ``left`` where the membership says so, ``restarted`` where it is known in
            a later life.
    """

    peer: Origin
    reason: str


@attrs.frozen
class MemberChanged:
    """The membership holds another opinion of a node; there may be no link with it.

    Attributes:
        before: None: nothing was known of it.
        after: what is held now; its ``status`` is the opinion.
    """

    before: Member | None
    after: Member


PeerEvent: TypeAlias = PeerUp | PeerDown


class Peers(Protocol):
    """The other nodes of the cluster.

    The object is the same for as long as the cluster is open.  ``origin`` changes
    when the node's part in the cluster crashed and begins a new life.
    """

    @property
    def origin(self) -> Origin:
        """This node, in its present life."""
        ...

    def all(self) -> tuple[Origin, ...]:
        """Return those that are up, sorted."""
        ...

    def get(self, name: str) -> Origin | None:
        """Return the node of that name if it is up."""
        ...

    def link(self, peer: Origin) -> Link | None:
        """Return the link with a peer; None where that life of it is not up."""
        ...

    def tell(
        self, peer: Origin, service: str, message: object, *, lane: Lane = Lane.MSG
    ) -> bool:
        """Send a message that nobody answers; does not wait.

        Returns:
            False where the peer is not up, or too much waits for it already: nothing
            was sent, and it is counted.

        Raises:
            LinkMessageError: the message is too long; nothing was sent.
            TypeError: it cannot be encoded; nothing was sent.
        """
        ...

    @overload
    async def call(
        self,
        peer: Origin,
        service: str,
        message: object,
        *,
        returns: type[R],
        timeout_s: float = ...,
    ) -> R: ...

    @overload
    async def call(
        self,
        peer: Origin,
        service: str,
        message: object,
        *,
        returns: UnionType,
        timeout_s: float = ...,
    ) -> object: ...

    def watch(
        self, callback: Callable[[PeerEvent], None]
    ) -> AbstractContextManager[None]:
        """Call back for each peer that is up, and whenever one comes or goes.

        The callback is called at once, in order, on whatever task the news comes:
        it must be quick, and must neither wait nor raise.  Leaving the block ends it.
        """
        ...

    def watch_members(
        self, callback: Callable[[MemberChanged], None]
    ) -> AbstractContextManager[None]:
        """Call back for each member that is known, and whenever one changes.

        The node itself is among them; else as :meth:`watch`.
        """
        ...
