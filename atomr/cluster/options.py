"""What a node has to be told to be part of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from atomr.cluster.discovery.address import HostPort, parse_address
from atomr.cluster.discovery.discovery import Discovery
from atomr.core.checks import check_seconds, check_text
from atomr.errors import short
from atomr.gossip.membership import MembershipOptions
from atomr.http2 import Credentials, node_uri
from atomr.http2.identity import MIN_COOKIE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_PORT = 4370
"""As Erlang's port mapper has 4369."""

_WILDCARDS = ("0.0.0.0", "::")


def _discoveries(given: Iterable[Discovery]) -> tuple[Discovery, ...]:
    if hasattr(given, "find"):
        raise TypeError(f"discovery={short(given)}: expected several, as [...]")
    return tuple(given)


@attrs.frozen(kw_only=True)
class ClusterOptions:
    """Who this node is, where it listens, and how it finds the others.

    Attributes:
        name: of this node; its certificate must say the same.
        cluster: its name; nodes of another one are refused.
        cookie: the cluster's secret, at least 16 bytes.
        credentials: the node's certificate, and whom it believes.
        listen: ``host:port``; port 0: any that is free.
        advertise: ``host:port``, or ``host`` with the port of ``listen``: where others
            reach this node; None: as ``listen``.
        discovery: where to find others; asked all, again and again.
        boot_file: where the last boot id is kept, so that the next one is above it
            though the clock was set back; None: the clock alone is trusted.
        membership: how fast members are probed and suspected.
        heartbeat_interval_s: of the links.
        heartbeat_timeout_s: a peer whose link is silent for so long has none; longer
            than the interval.
        handshake_timeout_s: from a connection to the hello.
        redial_s: wait before the first redial; doubles with each failure.
        max_redial_s: the longest wait.

    Raises:
        TypeError: an option is of another type.
        ValueError: one has no place in a certificate or is not what the certificate
            says, is no address, or is too small.
    """

    name: str
    cluster: str
    cookie: bytes = attrs.field(repr=False)
    credentials: Credentials
    listen: str = f"127.0.0.1:{DEFAULT_PORT}"
    advertise: str | None = None
    discovery: tuple[Discovery, ...] = attrs.field(default=(), converter=_discoveries)
    boot_file: Path | None = attrs.field(
        default=None, converter=attrs.converters.optional(Path)
    )
    membership: MembershipOptions = attrs.field(factory=MembershipOptions)
    heartbeat_interval_s: float = 1.0
    heartbeat_timeout_s: float = 5.0
    handshake_timeout_s: float = 5.0
    redial_s: float = 0.1
    max_redial_s: float = 5.0

    def __attrs_post_init__(self) -> None:
        check_text("name", self.name)
        check_text("cluster", self.cluster)
        node_uri(self.cluster, self.name)
        _check_cookie(self.cookie)
        self.check_credentials(self.credentials)
        if not isinstance(self.membership, MembershipOptions):
            raise TypeError(
                f"membership={short(self.membership)}: expected MembershipOptions(...)"
            )
        self._check_addresses()
        for discovery in self.discovery:
            _check_discovery(discovery)
        for name in _SECONDS:
            check_seconds(name, getattr(self, name), zero=False)
        if self.heartbeat_timeout_s <= self.heartbeat_interval_s:
            raise ValueError(
                f"heartbeat_timeout_s={self.heartbeat_timeout_s!r}: expected more than"
                f" heartbeat_interval_s={self.heartbeat_interval_s!r}, or every link"
                " ends before its first answer"
            )
        if self.max_redial_s < self.redial_s:
            raise ValueError(
                f"max_redial_s={self.max_redial_s!r}: expected at least"
                f" redial_s={self.redial_s!r}"
            )

    def check_credentials(self, credentials: Credentials) -> None:
        """Refuse credentials of another node: nobody would believe this one.

        Raises:
            TypeError: they are none.
            ValueError: the certificate does not name this node of this cluster alone.
        """
        if not isinstance(credentials, Credentials):
            raise TypeError(
                f"credentials={short(credentials)}: expected Credentials.load(...)"
            )
        uri, uris = node_uri(self.cluster, self.name), credentials.own_uris()
        if uris is not None and uris != (uri,):
            raise ValueError(
                f"name={self.name!r}, cluster={self.cluster!r}: expected a certificate"
                f" that names {uri} alone, and this one names"
                f" {' and '.join(uris) or 'no node'}; use that node's certificate, or"
                " what it says as name= and cluster="
            )

    def _check_addresses(self) -> None:
        check_text("listen", self.listen)
        listen = self.listen_at
        if self.advertise is not None:
            check_text("advertise", self.advertise)
        elif listen.host in _WILDCARDS:
            raise ValueError(
                f"listen={self.listen!r}: others cannot dial that; say where they"
                ' reach this node, as advertise="HOST" or advertise="HOST:PORT"'
            )
        self.advertised(listen.port or 1)

    @property
    def listen_at(self) -> HostPort:
        """Where the node listens; port 0: any."""
        return parse_address(self.listen)

    def advertised(self, port: int) -> str:
        """Return where others reach this node.

        Args:
            port: that it listens on.
        """
        if self.advertise is None:
            return str(attrs.evolve(self.listen_at, port=port))
        address = parse_address(self.advertise, default_port=port)
        if address.host in _WILDCARDS or address.port == 0:
            raise ValueError(
                f"advertise={self.advertise!r}: expected a host and a port that others"
                " can dial"
            )
        return str(address)


_SECONDS = (
    "heartbeat_interval_s",
    "heartbeat_timeout_s",
    "handshake_timeout_s",
    "redial_s",
    "max_redial_s",
)


def _check_cookie(cookie: object) -> None:
    if not isinstance(cookie, bytes):
        # Not shown: it is a secret.
        raise TypeError(f"cookie: expected bytes, not a {type(cookie).__name__}")
    if len(cookie) < MIN_COOKIE_BYTES:
        raise ValueError(
            f"cookie of {len(cookie)} bytes: expected at least {MIN_COOKIE_BYTES}, from"
            " a random generator, the same on all nodes"
        )


def _check_discovery(discovery: object) -> None:
    # A text has a find() too.
    if not (hasattr(discovery, "interval_s") and hasattr(discovery, "find")):
        raise TypeError(
            f"discovery has {short(discovery)}: expected a StaticSeeds, DnsSeeds or"
            " FileSeeds, or something with find() and interval_s"
        )
    check_seconds("interval_s", discovery.interval_s, zero=False)
