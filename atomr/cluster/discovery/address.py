"""Where a node listens, as text: ``host:port``, or ``[host]:port`` for IPv6.

Members tell each other their addresses, so one may be anything that a broken peer
has said: what is no address never comes as far as the resolver.

Pure.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address

import attrs

MAX_HOST_CHARACTERS = 253
MAX_PORT = 65_535

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_PORT = re.compile(r"[0-9]{1,5}")


@attrs.frozen
class HostPort:
    """An address that can be dialed.

    Attributes:
        host: a name or an IP address.
        port: from 1 to 65535; 0 only where the system is to choose.
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str, *, default_port: int | None = None) -> HostPort:
    """Return the address that a text says.

    Args:
        text: ``host:port`` or ``[host]:port``.
        default_port: for a text without one; None: there must be one.

    Raises:
        ValueError: it is none; says what is wrong with it.

    >>> parse_address("ams-1.prod:4370")
    HostPort(host='ams-1.prod', port=4370)
    >>> str(parse_address("[::1]:4370"))
    '[::1]:4370'
    >>> parse_address("10.0.0.1", default_port=4370).port
    4370
    """
    host, port = _split(text)
    if not port and default_port is not None and not text.endswith(":"):
        return HostPort(_checked_host(text, host), default_port)
    if not _PORT.fullmatch(port) or int(port) > MAX_PORT:
        raise ValueError(
            f"address {text!r}: expected HOST:PORT with a port up to {MAX_PORT}"
        )
    return HostPort(_checked_host(text, host), int(port))


def _split(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        return (host, port[1:]) if bracket and port[:1] in ("", ":") else ("", "")
    if text.count(":") > 1:
        raise ValueError(
            f"address {text!r}: expected an IPv6 address in brackets, [HOST]:PORT"
        )
    host, _, port = text.partition(":")
    return host, port


def _checked_host(text: str, host: str) -> str:
    if ":" in host:
        try:
            IPv6Address(host)
        except ValueError as error:
            raise ValueError(f"address {text!r}: {error}") from error
        return host
    if len(host) > MAX_HOST_CHARACTERS or not _HOST.fullmatch(host):
        raise ValueError(f"address {text!r}: {host!r} is no host's name or IP address")
    return host
