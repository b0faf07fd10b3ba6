"""What a discovery is.

A discovery that fails raises :class:`~atomr.errors.DiscoveryError`; the cluster then
keeps its last answer, says so once, and asks again.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

import attrs

from atomr.cluster.discovery.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Discovery(Protocol):
    """Finds addresses to join by."""

    @property
    def interval_s(self) -> float:
        """How often it is asked; infinity: once."""
        ...

    async def find(self) -> tuple[str, ...]:
        """Return all addresses there are now, ``host:port`` each.

        Raises:
            DiscoveryError: it cannot say; the last answer holds.

        Cancellation: leaves nothing behind.
        """
        ...


def as_addresses(given: Iterable[str]) -> tuple[str, ...]:
    """Return addresses as a tuple.

    Raises:
        TypeError: it is one text, and not several.
    """
    if isinstance(given, (str, bytes)):
        raise TypeError(f"addresses={given!r}: expected several, as [{given!r}]")
    return tuple(given)


@attrs.frozen
class StaticSeeds:
    """Addresses that are known beforehand.

    Attributes:
        addresses: ``host:port`` each; the node's own among them does no harm.

    Raises:
        ValueError: one is no address.
    """

    addresses: tuple[str, ...] = attrs.field(converter=as_addresses)
    interval_s: float = attrs.field(default=inf, init=False)

    def __attrs_post_init__(self) -> None:
        check_addresses(self.addresses)

    async def find(self) -> tuple[str, ...]:
        """Return them."""
        return self.addresses


def check_addresses(addresses: Sequence[str]) -> None:
    """Refuse what cannot be dialed.

    Raises:
        ValueError: one is no address, or has the port 0.
    """
    for text in addresses:
        if parse_address(text).port == 0:
            raise ValueError(f"address {text!r}: expected a port from 1 on")
