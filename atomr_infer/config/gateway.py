"""What the gateway's own settings are: the table ``[gateway]``.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypedDict

import attrs

from atomr_infer.model.secret import EnvSecret, FileSecret
from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    non_empty,
    not_negative,
    positive,
)

if TYPE_CHECKING:
    from typing import Any

# An IPv6 address stands in brackets, or its colons could not be told from the
# one in front of the port.
_BIND = re.compile(
    r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})"
)


def _bind(_: object, field: attrs.Attribute[Any], value: object) -> None:
    match = _BIND.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match["port"]) > 65535:
        raise InvalidValueError(
            field.name, value, 'is not an address such as "127.0.0.1:8080"'
        )


_path = attrs.validators.optional(non_empty)

# RFC 6454, 6.2: what a browser sends, and how it writes it.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@A-Z]+")


def _origins(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _check_origins(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple):
        raise InvalidValueError(field.name, value, "is not an array of origins")
    for origin in value:
        known = isinstance(origin, str) and _ORIGIN.fullmatch(origin)
        if origin != "*" and not known:
            known_one = 'is not an origin such as "https://app.example"'
            problem = f'{known_one}; write an array of them, or "*"'
            raise InvalidValueError(field.name, origin, problem)


class GatewayOptions(TypedDict, total=False):
    """The fields of :class:`GatewayConfig` that a program gives as keywords."""

    max_body_bytes: int
    write_timeout_s: float
    keepalive_s: float
    shared_references: bool
    cors_origins: tuple[str, ...]
    admin_bind: str | None
    virtual_keys: bool


@attrs.frozen(kw_only=True)
class GatewayConfig:
    """How the gateway listens and protects itself.

    Attributes:
        bind: ``host:port``; an IPv6 host stands in brackets, port 0 takes any
            free one.
        drain_timeout_s: how long requests may still run after a stop was asked
            for, in seconds.
        drain_grace_s: how long requests are still taken after a stop was asked
            for, while ``/readyz`` says 503 and a load balancer may notice, in
            seconds; ``drain_timeout_s`` begins behind it.
        max_body_bytes: largest request body; a larger one is refused with 413.
        write_timeout_s: how long a client may leave its answer unread before
            the request is cancelled, in seconds.
        keepalive_s: a stream that is silent for so long gets a few bytes that
            its client does not see, in seconds; 0: it stays silent.
        cors_origins: the origins whose pages a browser lets read the answers,
            such as ``https://app.example``; ``"*"``: any; none: no page.
        certificate: PEM file with the certificate, and its chain, that the
            gateway shows; none: it speaks HTTP without TLS.
        private_key: PEM file with that certificate's key, without a password.
        keys: where the keys that open the gateway are found, each a variable
            or a file; none: anyone who reaches the address can use it.
        virtual_keys: whether virtual keys open the gateway, beside the ``keys``; it
            is then open to nobody without a key.
        admin_key: where the key that opens the operators' routes, ``/admin/...``,
            is found, a variable or a file; none: there are no such routes.
        admin_bind: ``host:port`` of an address of the operators' routes alone; none:
            they are on the clients' address, for this machine only.
        shared_references: whether a client that shows one of the ``keys`` may name
            what a provider keeps for the account that all share (files, caches,
            vector stores) though it was not made for that key.
        watch: whether the configuration is read anew when its file has changed, or
            the certificate's, or one with a key of the gateway's.
        response_store: the SQLite file that keeps responses which later ones
            go on from by ``previous_response_id``; none: in memory.

    >>> gateway = GatewayConfig(bind="[::1]:9000")
    >>> gateway.host, gateway.port
    ('::1', 9000)
    """

    bind: str = attrs.field(default="127.0.0.1:8080", validator=_bind)
    drain_timeout_s: float = attrs.field(default=30.0, validator=positive)
    drain_grace_s: float = attrs.field(default=0.0, validator=not_negative)
    max_body_bytes: int = attrs.field(default=32 * 1024 * 1024, validator=at_least(1))
    write_timeout_s: float = attrs.field(default=60.0, validator=positive)
    keepalive_s: float = attrs.field(default=15.0, validator=not_negative)
    cors_origins: tuple[str, ...] = attrs.field(
        default=(), converter=_origins, validator=_check_origins
    )
    certificate: str | None = attrs.field(default=None, validator=_path)
    private_key: str | None = attrs.field(default=None, validator=_path)
    keys: tuple[EnvSecret | FileSecret, ...] = ()
    virtual_keys: bool = attrs.field(
        default=False, validator=attrs.validators.instance_of(bool)
    )
    admin_key: EnvSecret | FileSecret | None = None
    admin_bind: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(_bind)
    )
    shared_references: bool = attrs.field(
        default=False, validator=attrs.validators.instance_of(bool)
    )
    watch: bool = attrs.field(
        default=False, validator=attrs.validators.instance_of(bool)
    )
    response_store: str | None = attrs.field(default=None, validator=_path)

    def __attrs_post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            missing = "certificate" if self.certificate is None else "private_key"
            raise InvalidValueError(
                missing, None, "is needed: a certificate and its key come together"
            )

    @property
    def host(self) -> str:
        """The host of ``bind``, without brackets."""
        return _address(self.bind)[0]

    @property
    def port(self) -> int:
        """The port of ``bind``."""
        return _address(self.bind)[1]

    @property
    def admin_address(self) -> tuple[str, int]:
        """Host and port at which operators ask."""
        return _address(self.bind if self.admin_bind is None else self.admin_bind)


def _address(bind: str) -> tuple[str, int]:
    host, _, port = bind.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
