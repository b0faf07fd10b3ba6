"""Ports for servers that are told where to listen, often in a process of their own.

Who binds to port 0, and closes, has a port that was free a moment ago: until the server
has started, any connection of any test may be given it.  The ports of this module are
below those that Linux gives by itself.  Other tests are kept off them by a socket on
another address of loopback, for as long as this process lives.
"""

from __future__ import annotations

import errno
import random
import socket

_FIRST, _BEHIND = 15_000, 32_000
_BESIDE = "127.0.0.2"

_random = random.SystemRandom()
_kept: list[socket.socket] = []


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody else is given.

    Raises:
        OSError: no port can be bound to, for another reason than that one is in use.
    """
    while True:
        port = _random.randrange(_FIRST, _BEHIND)
        keeper = socket.socket()
        try:
            keeper.bind((_BESIDE, port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError as error:
            keeper.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        _kept.append(keeper)
        return port


def free_ports(number: int) -> list[int]:
    """Return as many of them."""
    return [free_port() for _ in range(number)]
