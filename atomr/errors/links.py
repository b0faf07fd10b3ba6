"""What becomes of a link between two nodes, and of what was sent over it."""

from __future__ import annotations

from atomr.errors.base import AtomrError, short


class LinkError(AtomrError):
    """Something about a link to another node.

    Attributes:
        peer: the other node: its name, or its ``Origin`` once it is known.
    """

    def __init__(self, peer: object, problem: str) -> None:
        self.peer = peer
        super().__init__(f"link to {peer}: {problem}")


class LinkRefusedError(LinkError):
    """No link came to be.

    Attributes:
        reason: one word of ``atomr.http2.Reason``.
        detail: the same for people.
        later_boot: of a later life of this node that the peer has a link with; None:
            that is not why.
    """

    def __init__(
        self,
        peer: object,
        reason: str,
        detail: str,
        *,
        later_boot: int | None = None,
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.later_boot = later_boot
        super().__init__(peer, f"refused, {reason}: {detail}")


class LinkDownError(LinkError):
    """The link ended; what was under way may have taken effect over there, or not.

    Attributes:
        reason: one word of ``atomr.http2.Reason``.
        detail: the same for people.
    """

    def __init__(self, peer: object, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(peer, f"down, {reason}: {detail}")


class LinkBusyError(LinkError):
    """Too much waits to be sent already; this message was not queued.

    Attributes:
        queued_bytes: what waits on that lane.
        limit_bytes: what may.
    """

    def __init__(self, peer: object, *, queued_bytes: int, limit_bytes: int) -> None:
        self.queued_bytes = queued_bytes
        self.limit_bytes = limit_bytes
        problem = f"busy, {queued_bytes} of {limit_bytes} bytes wait to be sent"
        super().__init__(peer, problem)


class LinkTimeoutError(LinkError):
    """No reply within ``timeout_s``; the peer was told that nobody waits for it.

    Attributes:
        service: what was called.
        timeout_s: the bound in seconds that passed.
    """

    def __init__(self, peer: object, service: str, timeout_s: float) -> None:
        self.service = service
        self.timeout_s = timeout_s
        super().__init__(peer, f"call({service!r}): no reply within {timeout_s} s")


class LinkCallError(LinkError):
    """The peer took the call and did not answer it with a reply.

    Attributes:
        service: what was called.
        code: ``no_service``, ``busy``, ``failed``, or a code of the service's own.
        detail: the same for people, in the peer's words.
    """

    def __init__(self, peer: object, service: str, code: str, detail: str) -> None:
        self.service = service
        self.code = code
        self.detail = detail
        super().__init__(peer, f"call({service!r}): {code}: {short(detail)}")


class LinkMessageError(LinkError):
    """A message is larger than a link carries in one piece; it was not sent.

    Attributes:
        size_bytes: its length.
        limit_bytes: the longest that is sent.
    """

    def __init__(self, peer: object, *, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        problem = f"a message of {size_bytes} bytes is over {limit_bytes}"
        super().__init__(peer, f"{problem}; send it as a stream, piece by piece")


class LinkStreamError(LinkError):
    """The peer broke one stream off; the link goes on.

    Attributes:
        code: HTTP/2's name of the reason.
    """

    def __init__(self, peer: object, code: str) -> None:
        self.code = code
        super().__init__(peer, f"the peer broke the stream off ({code})")
