"""Which nodes are at an address: those that say so, and whoever was found there.

Two members may say that they have the same one: somebody's mistake, but both are to be
reached by the links that they have.

A seed may be a name or a port of a load balancer that stands for a member with
another address, or for this node itself.  It is dialed once to find that out, and
again when that may have changed.

Pure.
"""

from __future__ import annotations

KEPT_S = 300.0
"""Names in DNS change hands."""

MAX_FOUND = 1024

MAX_AT_ONE = 8
"""More that say they are at one address are not looked for there."""


class AddressBook:
    """Addresses, and the nodes there."""

    __slots__ = ("_addresses", "_found", "_names")

    def __init__(self) -> None:
        """Start with no address."""
        self._addresses: dict[str, str] = {}
        self._names: dict[str, dict[str, None]] = {}
        self._found: dict[str, tuple[str, float]] = {}

    def put(self, name: str, address: str) -> None:
        """Note where a node says that it is."""
        if self._addresses.get(name) == address:
            return
        self.drop(name)
        names = self._names.setdefault(address, {})
        if len(names) < MAX_AT_ONE:
            self._addresses[name] = address
            names[name] = None

    def drop(self, name: str) -> None:
        """Forget where that node is."""
        address = self._addresses.pop(name, None)
        if address is not None:
            names = self._names[address]
            del names[name]
            if not names:
                del self._names[address]

    def found(self, address: str, name: str, now_s: float) -> None:
        """Note who answered at an address."""
        if len(self._found) >= MAX_FOUND:
            self._found.clear()
        self._found[address] = name, now_s + KEPT_S

    def whom(self, address: str, now_s: float) -> tuple[str, ...]:
        """Return who says that it is there; else who was found there not long ago."""
        names = self._names.get(address)
        if names:
            return tuple(names)
        name, until_s = self._found.get(address, ("", 0.0))
        return (name,) if now_s < until_s else ()
