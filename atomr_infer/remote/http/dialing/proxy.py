"""Which proxy a request goes through, as the environment says it.

The variables are those that every tool reads: ``HTTP_PROXY``, ``HTTPS_PROXY``,
``ALL_PROXY`` and ``NO_PROXY``, in lower case first.  ``HTTP_PROXY`` in upper
case is not read where ``REQUEST_METHOD`` is set: in a CGI script it is a header
of the client's (CVE-2016-5385).  This machine itself is never asked for
through a proxy.

Pure: the environment is an argument.
"""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import attrs

from atomr_infer.model.secret import Secret
from atomr_infer.remote.http.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

_DEFAULT_PORTS = {"http": 80, "https": 443}


@attrs.frozen
class Proxy:
    """A proxy that speaks HTTP.

    Attributes:
        origin: where it is; ``https`` when it is spoken to over TLS.
        authorization: the value of ``proxy-authorization``; None: none.
    """

    origin: Origin
    authorization: Secret | None = None

    def __str__(self) -> str:
        return str(self.origin)


@attrs.frozen(kw_only=True)
class Proxies:
    """Proxies by the scheme of the origin, and who is asked without one.

    Attributes:
        http: for ``http`` origins; None: no proxy.
        https: for ``https`` origins; None: no proxy.
        without: the entries of ``NO_PROXY``, in lower case.
    """

    http: Proxy | None = None
    https: Proxy | None = None
    without: tuple[str, ...] = ()

    def of(self, origin: Origin) -> Proxy | None:
        """Return the proxy for an origin; None when it is asked directly.

        >>> Proxies(https=parse_proxy("p:3128")).of(Origin("https", "localhost", 443))
        """
        proxy = self.https if origin.tls else self.http
        if proxy is None or _is_here(origin.host):
            return None
        if any(_excludes(entry, origin) for entry in self.without):
            return None
        return proxy


DIRECT = Proxies()
"""No proxy at all."""


def proxies_from(environ: Mapping[str, str]) -> Proxies:
    """Return what the environment says.

    Raises:
        ValueError: a variable holds no URL of a proxy; it is named, and its
            value, which may hold a password, is not shown.
    """
    for_all = _variable(environ, "all_proxy")
    in_cgi = "REQUEST_METHOD" in environ
    without = environ.get("no_proxy") or environ.get("NO_PROXY", "")
    return Proxies(
        http=_variable(environ, "http_proxy", lower_only=in_cgi) or for_all,
        https=_variable(environ, "https_proxy") or for_all,
        without=tuple(e.strip().lower() for e in without.split(",") if e.strip()),
    )


def parse_proxy(text: str) -> Proxy:
    """Return the proxy of a URL: ``[http[s]://][user:password@]host[:port]``.

    Raises:
        ValueError: says what is wrong, without a password.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError:
        raise ValueError("it is not a URL") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"its scheme {parts.scheme!r} is not http or https")
    if not parts.hostname:
        raise ValueError("it names no host")
    port = port or _DEFAULT_PORTS[parts.scheme]
    return Proxy(Origin(parts.scheme, parts.hostname, port), _authorization(parts))


def _variable(
    environ: Mapping[str, str], name: str, *, lower_only: bool = False
) -> Proxy | None:
    text = environ.get(name) or (None if lower_only else environ.get(name.upper()))
    if not text:
        return None
    try:
        return parse_proxy(text)
    except ValueError as error:
        raise ValueError(
            f"the environment's {name.upper()} is not the URL of a proxy: {error}"
        ) from error


def _authorization(parts: SplitResult) -> Secret | None:
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Secret(f"Basic {b64encode(pair.encode()).decode('ascii')}")


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _excludes(entry: str, origin: Origin) -> bool:
    """True when an entry of ``NO_PROXY`` means the origin.

    An entry is ``*``, an address, a network such as ``10.0.0.0/8``, or a name,
    which means what is below it too; each but the first with a port or without.
    """
    if entry == "*":
        return True
    host, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and ("]" in host or ":" not in host):
        if int(port) != origin.port:
            return False
        entry = host
    address = _address(origin.host)
    if address is not None:
        return _holds(entry.strip("[]"), address)
    name = entry.removeprefix("*").removeprefix(".")
    return origin.host == name or origin.host.endswith(f".{name}")


def _holds(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
