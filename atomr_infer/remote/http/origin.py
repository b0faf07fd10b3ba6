"""Where an upstream is: scheme, host, port and path prefix out of a base URL.

Pure.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

import attrs

_DEFAULT_PORTS = {"http": 80, "https": 443}
_VISIBLE_ASCII = re.compile(r"[!-~]+")


@attrs.frozen
class Origin:
    """One server, as connections to it are told apart.

    Attributes:
        scheme: ``http`` or ``https``.
        host: name or address, without brackets.
        port: 1 to 65535.

    >>> str(Origin("https", "api.example.com", 443))
    'https://api.example.com'
    """

    scheme: str
    host: str
    port: int

    @property
    def tls(self) -> bool:
        """True when the connection is encrypted."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The ``Host`` header: an IPv6 address in brackets, no default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port == _DEFAULT_PORTS[self.scheme]:
            return host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@attrs.frozen
class BaseUrl:
    """An origin and the path that all requests to it start with.

    Attributes:
        origin: the server.
        prefix: ``""`` or a path such as ``/v1``, without a slash at its end.
    """

    origin: Origin
    prefix: str


def parse_base_url(text: str) -> BaseUrl:
    """Return the parts of a base URL.

    Raises:
        ValueError: says what is wrong with ``text``.

    >>> parse_base_url("http://[::1]:8000/v1/").origin.authority
    '[::1]:8000'
    """
    if _VISIBLE_ASCII.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a URL; use visible ASCII characters")
    # The password is not for messages, so what has one is refused unnamed.
    if "@" in text:
        raise ValueError("a base URL holds no user or password; use a credential")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is not a URL: {error}") from error
    _check(text, parts)
    if port == 0:
        raise ValueError(f"{text!r} has port 0, on which nothing can listen")
    if port is None:
        port = _DEFAULT_PORTS[parts.scheme]
    origin = Origin(parts.scheme, parts.hostname or "", port)
    return BaseUrl(origin, parts.path.rstrip("/"))


def _check(text: str, parts: SplitResult) -> None:
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{text!r} does not start with http:// or https://")
    if not parts.hostname:
        raise ValueError(f"{text!r} names no host")
    if parts.query or parts.fragment:
        raise ValueError(f"{text!r} has a query or fragment; a base URL has neither")
