"""Which web pages may read the gateway's answers (CORS), and what OPTIONS answers.

A browser asks before it sends what a form could not (the *preflight*), and then
shows an answer to the page only where its headers name the page's origin.  So
each answer has them, errors and streams too.  It asks without a key: a
preflight opens nothing.

Nothing is said to an origin that is not named; its browser keeps the answer.

Pure.

Source: WHATWG Fetch, 3.3 "CORS protocol".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from atomr_infer.gateway.exchanges.answer_headers import OWN_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Fields = tuple[tuple[bytes, bytes], ...]

_MAX_AGE_S = 7200  # more is cut by browsers

_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?: *, *[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
_MAX_NAMES = 2000

_EXPOSED = (b"access-control-expose-headers", ", ".join(OWN_HEADERS).encode())


class Cors:
    """What is allowed to whom."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        """Take the origins; ``*`` stands for any."""
        self._origins = frozenset(origins)
        self._any = "*" in self._origins

    def headers(self, asked: Mapping[str, str]) -> Fields:
        """Return what each answer to a request has besides.

        Args:
            asked: the request's headers, by lower-case name.
        """
        if self._any:
            return ((b"access-control-allow-origin", b"*"), _EXPOSED)
        if not self._origins:
            return ()
        vary = (b"vary", b"origin")
        origin = asked.get("origin")
        if origin not in self._origins:
            return (vary,)
        allowed = (b"access-control-allow-origin", origin.encode())
        return (allowed, _EXPOSED, vary)

    def preflight(self, asked: Mapping[str, str], methods: bytes) -> Fields:
        """Return what the answer to OPTIONS has besides :meth:`headers`.

        Args:
            asked: the request's headers, by lower-case name.
            methods: what the path takes, as in ``allow``.
        """
        wanted = "access-control-request-method" in asked
        if not wanted or not (self._any or asked.get("origin") in self._origins):
            return ()
        fields = [
            (b"access-control-allow-methods", methods),
            (b"access-control-max-age", str(_MAX_AGE_S).encode()),
        ]
        # Named one by one: a star does not stand for authorization.
        names = asked.get("access-control-request-headers", "")
        if len(names) <= _MAX_NAMES and _NAMES.fullmatch(names):
            fields.append((b"access-control-allow-headers", names.encode()))
        return tuple(fields)
