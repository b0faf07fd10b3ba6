"""What the gateway's own settings are: the table ``[gateway]``.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.secret import EnvSecret, FileSecret
from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    non_empty,
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


@attrs.frozen(kw_only=True)
class GatewayConfig:
    """How the gateway listens and protects itself.

    Attributes:
        bind: ``host:port``; an IPv6 host stands in brackets, port 0 takes any
            free one.
        drain_timeout_s: how long requests may still run after a stop was asked
            for, in seconds.
        max_body_bytes: largest request body; a larger one is refused with 413.
        write_timeout_s: how long a client may leave its answer unread before
            the request is cancelled, in seconds.
        certificate: PEM file with the certificate, and its chain, that the
            gateway shows; none: it speaks HTTP without TLS.
        private_key: PEM file with that certificate's key, without a password.
        keys: where the keys that open the gateway are found, each a variable
            or a file; none: anyone who reaches the address can use it.
        response_store: the SQLite file that keeps responses which later ones
            go on from by ``previous_response_id``; none: in memory.

    >>> gateway = GatewayConfig(bind="[::1]:9000")
    >>> gateway.host, gateway.port
    ('::1', 9000)
    """

    bind: str = attrs.field(default="127.0.0.1:8080", validator=_bind)
    drain_timeout_s: float = attrs.field(default=30.0, validator=positive)
    max_body_bytes: int = attrs.field(default=32 * 1024 * 1024, validator=at_least(1))
    write_timeout_s: float = attrs.field(default=60.0, validator=positive)
    certificate: str | None = attrs.field(default=None, validator=_path)
    private_key: str | None = attrs.field(default=None, validator=_path)
    keys: tuple[EnvSecret | FileSecret, ...] = ()
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
        host, _, _ = self.bind.rpartition(":")
        return host.removeprefix("[").removesuffix("]")

    @property
    def port(self) -> int:
        """The port of ``bind``."""
        return int(self.bind.rpartition(":")[2])
