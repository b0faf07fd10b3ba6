"""Addresses that a client does not get through to: a closed port, foreign TLS."""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator


@attrs.frozen
class TlsPair:
    """Both sides of TLS, under an authority that nobody else knows.

    Attributes:
        server: proves to be ``localhost`` and ``127.0.0.1``.
        client: trusts that authority.  A client with the system's own
            authorities does not, and fails in the handshake.
    """

    server: ssl.SSLContext
    client: ssl.SSLContext


def make_tls() -> TlsPair:
    """Make an authority and a certificate under it; needs ``trustme``."""
    import trustme  # noqa: PLC0415 - a development tool, not needed to import us

    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return TlsPair(server, client)


@contextmanager
def refused_origin() -> Iterator[str]:
    """Hold a port on which connections are refused.

    Yields:
        ``http://127.0.0.1:PORT``, which nobody else gets while it is held.
    """
    with socket.socket() as held:
        # Bound and never listening: the kernel refuses, and keeps the port ours.
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
