"""The door of a gateway: who is let in, and why not.

Two kinds of keys open it: those of its configuration, which are the same until it is
restarted, and virtual keys, which come and go while it serves.  So who a configured
key is, is worked out once for each head that a connection repeats, and a virtual key
is looked up anew for each request: in a dictionary, by the digest of what was shown,
which is all that is kept of a head.

Where virtual keys are taken nobody comes in without a key, also before the first one
is made, and while a node that has just started has heard of none yet.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs

from atomr_infer.gateway.access.keys import GatewayKeys, bare, presented_key, refusal
from atomr_infer.model.asker import ANYBODY, Visitor
from atomr_infer.model.key_secret import digest_of, is_ours, is_whole
from atomr_infer.policy.tenants.key_table import End

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from atomr_infer.policy.tenants.key_table import Standing
    from atomr_infer.serving.limits.key_ring import KeyRing


@attrs.frozen
class Refusal:
    """Why somebody is not let in.

    Attributes:
        code: for programs.
        message: one sentence, for who wrote the request.
        status: of HTTP; 503: the same request may be let in soon.
    """

    code: str
    message: str
    status: int = 401


class Door:
    """Who may come in."""

    def __init__(
        self, keys: GatewayKeys | None = None, ring: KeyRing | None = None
    ) -> None:
        """Make a door.

        Args:
            keys: those of the configuration.
            ring: virtual keys; None: they open nothing.
        """
        self._keys = keys or GatewayKeys()
        self._ring = ring

    @property
    def needs_key(self) -> bool:
        """Whether a request must show a key."""
        return self._keys.needed or self._ring is not None

    @property
    def takes_virtual_keys(self) -> bool:
        """Whether virtual keys open it."""
        return self._ring is not None

    def visitor(
        self, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> Visitor | None:
        """Return who a head says that it is, for as long as the gateway runs.

        Args:
            headers: by lower-case name.
            query: by name.

        Returns:
            None when it shows none of the configuration's keys.
        """
        if not self.needs_key:
            return ANYBODY
        if not self._keys.needed:
            return None
        owner = self._keys.owner(headers, query)
        return None if owner is None else Visitor(owner)

    def digest(
        self, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> bytes | None:
        """Return what is kept of the virtual key that a head shows; None: of none."""
        if self._ring is None:
            return None
        key = presented_key(headers, query)
        return digest_of(key) if key is not None and is_ours(key) else None

    def admitted(self, digest: bytes | None) -> Visitor | None:
        """Return who comes with a virtual key now; None: nobody."""
        if digest is None or self._ring is None:
            return None
        standing = self._ring.find(digest)
        if standing is None or not standing.is_open(self._ring.wall_s()):
            return None
        return standing.visitor

    def refusal(
        self,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        digest: bytes | None,
    ) -> Refusal:
        """Return why a request is not let in."""
        if digest is None or self._ring is None:
            return Refusal("invalid_api_key", refusal(headers))
        standing = self._ring.find(digest)
        if standing is not None:
            return _over(standing)
        key = presented_key(headers, query)
        if key is None or not is_whole(key):
            problem = "the virtual key is mistyped or cut: its checksum does not fit"
            return Refusal("invalid_api_key", problem)
        if self._ring.is_newcomer:
            problem = "this node has just started, and may not know the virtual key yet"
            return Refusal("not_ready", problem, 503)
        return Refusal("invalid_api_key", "the virtual key is not known here")

    def without(
        self, headers: Mapping[str, str], names: Iterable[str]
    ) -> Mapping[str, str]:
        """Return headers without the keys that open the gateway, or once did.

        Args:
            headers: by lower-case name.
            names: those that go to an upstream, which our keys must not.
        """
        if not self.needs_key:
            return headers
        own = [n for n in names if n in headers and self._is_ours(bare(headers[n]))]
        if not own:
            return headers
        return {name: text for name, text in headers.items() if name not in own}

    def _is_ours(self, key: str) -> bool:
        if self._keys.opens(key):
            return True
        # One that we have not heard of may be of a gateway behind this one.
        return (
            self._ring is not None
            and is_ours(key)
            and self._ring.find(digest_of(key)) is not None
        )


def _over(standing: Standing) -> Refusal:
    called = f"the virtual key {standing.key.name!r}"
    at = "" if standing.ended_at_s is None else f" at {_shown(standing.ended_at_s)}"
    match standing.end:
        case End.EXPIRED:
            return Refusal("api_key_expired", f"{called} expired{at}")
        case End.ROTATED:
            problem = f"{called} has another secret; this one ended{at}"
            return Refusal("api_key_rotated", problem)
        case End.NO_TEAM:
            problem = (
                f"{called} is of the team {standing.key.team!r}, which is not "
                "configured here"
            )
            return Refusal("team_not_found", problem)
        case _:
            return Refusal("api_key_revoked", f"{called} was revoked{at}")


def _shown(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")
