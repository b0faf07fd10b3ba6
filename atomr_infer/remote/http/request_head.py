"""Heads of requests; those of HTTP/1.1 are made once for each method and path.

A client asks for the same few paths all its life, so what is the same in each
request is checked and encoded once.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from atomr_infer.remote.http.headers import encode_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.remote.http.dialing.proxy import Proxy
    from atomr_infer.remote.http.headers import Headers
    from atomr_infer.remote.http.origin import BaseUrl

# A path with a number in it would make the table grow for ever.
_MAX_KEPT = 256

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]+")
_TARGET = re.compile(r"[!-~]+")

_OF_THE_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"}
)

_WITHOUT_BODY = frozenset({"GET", "HEAD"})


def check_request(method: str, target: str) -> None:
    """Refuse a method or a target that no request line can carry.

    Raises:
        ValueError: says which.
    """
    if _METHOD.fullmatch(method) is None:
        raise ValueError(f"{method!r} is not an HTTP method")
    if _TARGET.fullmatch(target) is None:
        raise ValueError(
            f"{method} {target}: a path holds visible ASCII only; quote the rest"
        )


def check_own_headers(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse the headers that the client writes itself.

    Raises:
        ValueError: names the header.
    """
    for name, _ in fields:
        if name.lower() in {b"content-length", b"transfer-encoding", b"host"}:
            raise ValueError(
                f"the header {name.decode()!r} is the client's own; leave it out"
            )


def _for_http2(fields: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the fields as HTTP/2 wants them (RFC 9113, 8.2)."""
    return [
        (name.lower(), value)
        for name, value in fields
        if name.lower() not in _OF_THE_CONNECTION
    ]


class RequestHeads:
    """The heads of one client's requests."""

    def __init__(
        self, headers: Headers, *, url: BaseUrl, reader: Proxy | None = None
    ) -> None:
        """Keep what is in every request.

        Args:
            headers: the client's.
            url: where the requests go, and what stands before every path.
            reader: the proxy that reads the requests; it is told the whole
                URL, and who asks.

        Raises:
            ValueError: a header is not valid.
        """
        fixed = encode_headers(headers)
        check_own_headers(fixed)
        self._authority = url.origin.authority.encode("ascii")
        self._scheme = url.origin.scheme.encode("ascii")
        self._fixed = b"".join(
            b"%b: %b\r\n" % field for field in [(b"host", self._authority), *fixed]
        )
        self._fixed_fields = _for_http2(fixed)
        self._prefix = url.prefix
        self._line_prefix = url.prefix
        if reader is not None:
            self._line_prefix = f"{url.origin}{url.prefix}"
            if reader.authorization is not None:
                value = reader.authorization.reveal().encode("ascii")
                self._fixed += b"proxy-authorization: %b\r\n" % value
        self._kept: dict[tuple[str, str], bytes] = {}

    def encode(
        self, method: str, path: str, *, headers: Headers, body_bytes: int
    ) -> bytes:
        """Return a request up to its body.

        Raises:
            ValueError: the method, the path or a header is not valid.
        """
        head = self._kept.get((method, path))
        if head is None:
            head = self._begin(method, path)
        if headers:
            fields = encode_headers(headers)
            check_own_headers(fields)
            head += b"".join(b"%b: %b\r\n" % field for field in fields)
        if body_bytes or method not in _WITHOUT_BODY:
            return b"%bcontent-length: %d\r\n\r\n" % (head, body_bytes)
        return head + b"\r\n"

    def fields(
        self, method: str, path: str, *, headers: Headers, body_bytes: int
    ) -> list[tuple[bytes, bytes]]:
        """Return the same as HTTP/2 has it: pseudo-header fields first.

        Raises:
            ValueError: a header is not valid.
        """
        fields = [
            (b":method", method.encode("ascii")),
            (b":scheme", self._scheme),
            (b":authority", self._authority),
            (b":path", (self._prefix + path).encode("ascii")),
            *self._fixed_fields,
            *_for_http2(encode_headers(headers)),
        ]
        if body_bytes or method not in _WITHOUT_BODY:
            fields.append((b"content-length", b"%d" % body_bytes))
        return fields

    def _begin(self, method: str, path: str) -> bytes:
        target = self._line_prefix + path
        check_request(method, target)
        head = f"{method} {target} HTTP/1.1\r\n".encode("ascii") + self._fixed
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        self._kept[method, path] = head
        return head
