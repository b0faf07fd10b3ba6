"""Seeds by DNS, as a headless service of Kubernetes has them.

:class:`DnsSeeds` asks the system's resolver for addresses, with all that it knows:
``/etc/hosts``, search domains, caches.  :class:`SrvSeeds` asks for SRV records, which
name ports too; it needs the extra ``dns``.

A name that is not there, or has no such record, is a failure and not an empty answer:
a service that is just being made, or a resolver that has just lost its own upstream,
says the same.
"""

from __future__ import annotations

import importlib.util
from ipaddress import ip_address
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.cluster.discovery.address import HostPort, parse_address
from atomr.cluster.discovery.discovery import as_addresses
from atomr.core.checks import check_seconds, check_text
from atomr.errors import DiscoveryError

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver
    from dns.rdtypes.IN.SRV import SRV

INTERVAL_S = 10.0
TIMEOUT_S = 5.0


@attrs.frozen
class DnsSeeds:
    """All addresses of a name, A and AAAA, with one port.

    Attributes:
        host: the name.
        port: that all nodes listen on.
        interval_s: how often it is asked.
        timeout_s: an answer that takes longer is a failure.

    Raises:
        TypeError: one is of another type.
        ValueError: one is no name, no port, or too small.
    """

    host: str
    port: int = 4370
    interval_s: float = attrs.field(default=INTERVAL_S, kw_only=True)
    timeout_s: float = attrs.field(default=TIMEOUT_S, kw_only=True)

    def __attrs_post_init__(self) -> None:
        check_text("host", self.host)
        if parse_address(str(HostPort(self.host, self.port))).port == 0:
            raise ValueError(f"port={self.port!r}: expected a port from 1 on")
        _check_times(self.interval_s, self.timeout_s)

    async def find(self) -> tuple[str, ...]:
        """Return its addresses, sorted.

        Raises:
            DiscoveryError: there are none, or no answer in time.

        Cancellation: the system's look-up goes on by itself, and is not waited for.
        """
        source = f"DNS, addresses of {self.host}"
        try:
            with trio.fail_after(self.timeout_s):
                found = await trio.socket.getaddrinfo(
                    self.host, self.port, type=trio.socket.SOCK_STREAM
                )
        except trio.TooSlowError as error:
            raise DiscoveryError(source, f"no answer in {self.timeout_s} s") from error
        except OSError as error:
            raise DiscoveryError(source, str(error)) from error
        addresses = {HostPort(str(row[4][0]), self.port) for row in found}
        return tuple(sorted(map(str, addresses)))


@attrs.frozen
class SrvSeeds:
    """The targets of a name's SRV records.

    Attributes:
        name: with its domain, such as ``_atomr._tcp.nodes.prod.svc.cluster.local``; no
            search domain is added.
        nameservers: ``ip:port`` or ``ip`` each; none: those of the system.
        interval_s: how often they are asked.
        timeout_s: for all of them and all tries together.

    Raises:
        ImportError: the extra ``dns`` is not installed.
        TypeError: one is of another type.
        ValueError: one is no name, no server, or too small.
    """

    name: str
    nameservers: tuple[str, ...] = attrs.field(
        default=(), converter=as_addresses, kw_only=True
    )
    interval_s: float = attrs.field(default=INTERVAL_S, kw_only=True)
    timeout_s: float = attrs.field(default=TIMEOUT_S, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if importlib.util.find_spec("dns") is None:
            raise ImportError(
                "SrvSeeds asks by dnspython: pip install 'atomr-infer[dns]'"
            )
        check_text("name", self.name)
        parse_address(f"{self.name}:1")
        for server in self.nameservers:
            ip_address(parse_address(server, default_port=53).host)
        _check_times(self.interval_s, self.timeout_s)

    async def find(self) -> tuple[str, ...]:
        """Return the targets with their ports, those of the best priority first.

        Raises:
            DiscoveryError: there is no such record, or no answer in time.
        """
        from dns.exception import DNSException  # noqa: PLC0415 - of an extra

        try:
            resolver = await self._resolver()
            answer = await resolver.resolve(
                f"{self.name.rstrip('.')}.", "SRV", lifetime=self.timeout_s
            )
        except (DNSException, OSError) as error:
            source = f"DNS, SRV of {self.name}"
            raise DiscoveryError(source, str(error)) from error
        records: list[SRV] = sorted(answer, key=_order)
        return tuple(str(target) for r in records if (target := _target(r)) is not None)

    async def _resolver(self) -> Resolver:
        from dns.asyncresolver import Resolver  # noqa: PLC0415 - of an extra
        from dns.nameserver import Do53Nameserver  # noqa: PLC0415 - of an extra

        if not self.nameservers:
            # Reads the system's settings, from files that may be on a slow disk.
            return await trio.to_thread.run_sync(Resolver)
        resolver = Resolver(configure=False)
        given = [parse_address(text, default_port=53) for text in self.nameservers]
        resolver.nameservers = [Do53Nameserver(at.host, at.port) for at in given]
        return resolver


def _order(record: SRV) -> tuple[int, int, str, int]:
    return record.priority, -record.weight, str(record.target), record.port


def _target(record: SRV) -> HostPort | None:
    """Return where a record points; None: it says that there is no service."""
    host = record.target.to_text(omit_final_dot=True)
    return HostPort(host, record.port) if host != "." else None


def _check_times(interval_s: float, timeout_s: float) -> None:
    check_seconds("interval_s", interval_s, zero=False)
    check_seconds("timeout_s", timeout_s, zero=False)
