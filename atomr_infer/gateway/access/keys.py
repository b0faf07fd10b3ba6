"""Who may use the gateway: the keys that open it.

A key is accepted wherever the SDKs of the three dialects put it.  What is kept
is a digest of each, and a presented key is compared with all of them, so that
the time taken says nothing about any.

Pure.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from atomr_infer.model.key_secret import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atomr_infer.model.secret import Secret

_BEARER = "bearer "
_AUTHORIZATION = "authorization"
_HEADERS = ("x-api-key", "x-goog-api-key", "api-key")
_QUERY = "key"


class GatewayKeys:
    """The keys that open a gateway; without any, it is open to everyone."""

    def __init__(self, keys: Iterable[Secret] = ()) -> None:
        self._digests = tuple(digest_of(key.reveal()) for key in keys)

    def __repr__(self) -> str:
        return f"<GatewayKeys: {len(self._digests)}>"

    @property
    def needed(self) -> bool:
        """Whether a request must show a key."""
        return bool(self._digests)

    def allow(self, headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
        """Whether a request may pass.

        Args:
            headers: by lower-case name.
            query: by name.
        """
        return self.owner(headers, query) is not None

    def owner(
        self, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> bytes | None:
        """Return who asks, as a digest of the key; None: the request may not pass.

        Args:
            headers: by lower-case name.
            query: by name.

        Returns:
            b"" where no key is needed: there is nobody to tell apart.
        """
        if not self._digests:
            return b""
        key = presented_key(headers, query)
        shown = None if key is None else digest_of(key)
        return shown if shown is not None and self._knows(shown) else None

    def opens(self, key: str) -> bool:
        """Whether a text is one of the keys."""
        return self._knows(digest_of(key))

    def _knows(self, shown: bytes) -> bool:
        # Every digest is compared, whatever the first one says.
        return sum(hmac.compare_digest(shown, known) for known in self._digests) > 0


def presented_key(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """Return the key that a request shows; None when it shows none.

    >>> presented_key({"authorization": "Bearer k"}, {})
    'k'
    """
    for name in _HEADERS:
        if headers.get(name):
            return headers[name]
    bearer = headers.get(_AUTHORIZATION, "")
    if bearer[: len(_BEARER)].lower() == _BEARER:
        return bearer[len(_BEARER) :].strip() or None
    return query.get(_QUERY) or None


def refusal(headers: Mapping[str, str], *, opens: str = "this gateway") -> str:
    """Return why a request is not let in, in one sentence for who wrote it.

    Args:
        headers: by lower-case name.
        opens: what the right key would open.

    >>> refusal({"authorization": "a-key"})
    "the authorization header shows no key: write 'Bearer ' in front of it"
    """
    shown = headers.get(_AUTHORIZATION, "").strip()
    elsewhere = any(headers.get(name) for name in _HEADERS)
    is_bare = " " not in shown and shown.lower() != _BEARER.strip()
    if shown and is_bare and not elsewhere:
        return "the authorization header shows no key: write 'Bearer ' in front of it"
    return f"the request shows no key that opens {opens}"


def bare(text: str) -> str:
    """Return what is in a header, without the scheme that may stand before it."""
    is_bearer = text[: len(_BEARER)].lower() == _BEARER
    return (text[len(_BEARER) :] if is_bearer else text).strip()
