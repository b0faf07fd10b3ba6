"""Which URLs of a client's may be fetched on its behalf, and which never.

A gateway stands inside a network that its clients do not; a URL in a request
must not become a way in.  So only ``http`` and ``https`` on their usual ports
or above 1023, and no address that is private, local, reserved or of this host.
A name is judged by the addresses that it resolves to, at the moment of the
connection, and the connection goes to the very address that was judged.

Pure.

Source: OWASP, "Server-Side Request Forgery Prevention"; IANA special-purpose
address registries.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import attrs

_PORTS = {"http": 80, "https": 443}
_FIRST_FREE_PORT = 1024

MAX_REDIRECTS = 3
"""How many redirects are followed; each target is judged anew."""


class ForbiddenUrlError(Exception):
    """A URL that must not be fetched; the message says why."""


@attrs.frozen
class FetchTarget:
    """A URL, taken apart.

    Attributes:
        base_url: scheme, host and port.
        path: with its query.
    """

    base_url: str
    path: str


def fetch_target(url: str) -> FetchTarget:
    """Return where a URL leads.

    Raises:
        ForbiddenUrlError: its scheme, port or form is not allowed.

    >>> fetch_target("https://x.example/a/b?c#d")
    FetchTarget(base_url='https://x.example:443', path='/a/b?c')
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ForbiddenUrlError(f"it is not a URL: {error}") from error
    if parts.scheme not in _PORTS:
        raise ForbiddenUrlError("only http and https URLs are fetched")
    if not parts.hostname:
        raise ForbiddenUrlError("it names no host")
    if "@" in parts.netloc:
        raise ForbiddenUrlError("it holds a user or a password")
    usual = _PORTS[parts.scheme]
    port = usual if port is None else port
    if port != usual and port < _FIRST_FREE_PORT:
        raise ForbiddenUrlError(f"port {port} belongs to another service")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    query = f"?{parts.query}" if parts.query else ""
    return FetchTarget(f"{parts.scheme}://{host}:{port}", (parts.path or "/") + query)


def check_address(text: str) -> None:
    """Refuse an IP address that is not on the public internet.

    Args:
        text: an address as the resolver gave it; a scope may follow a ``%``.

    Raises:
        ForbiddenUrlError: it is private, local, reserved, or leads to such.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(address.packed[-4:])
        if inner is not None:
            check_address(str(inner))
        elif address not in _GLOBAL_UNICAST:
            raise _not_public()
    listed = any(address in network for network in _NOT_PUBLIC)
    if listed or not address.is_global or address.is_multicast:
        raise _not_public()


def _not_public() -> ForbiddenUrlError:
    return ForbiddenUrlError("it leads to an address that is not public")


_NAT64 = ipaddress.ip_network("64:ff9b::/96")

# All else is reserved: old ways to write an IPv4 address, site-local, local NAT64.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")

# Python's table does not have these, or has them as public.
_NOT_PUBLIC = (
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's host, from inside a machine
    ipaddress.ip_network("192.0.0.0/24"),  # protocol assignments; Oracle's metadata
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4 relays
    ipaddress.ip_network("3fff::/20"),  # documentation
)
