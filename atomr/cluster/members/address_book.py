"""Which node was found at an address that no member says it has.

A seed may be a name or a port of a load balancer that stands for a member with
another address, or for this node itself.  It is dialed once to find that out, and
again when that may have changed.

Pure.
"""

from __future__ import annotations

KEPT_S = 300.0
"""Names in DNS change hands."""

MAX_ENTRIES = 1024


class AddressBook:
    """Addresses, and the nodes found there."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        """Start with no address."""
        self._found: dict[str, tuple[str, float]] = {}

    def learn(self, address: str, name: str, now_s: float) -> None:
        """Note who was found at an address."""
        if len(self._found) >= MAX_ENTRIES:
            self._found.clear()
        self._found[address] = name, now_s + KEPT_S

    def whom(self, address: str, now_s: float) -> str | None:
        """Return who was found there not long ago."""
        name, until_s = self._found.get(address, ("", 0.0))
        return name if now_s < until_s else None
