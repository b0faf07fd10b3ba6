"""All links of one node: it listens, dials, and keeps one link for each peer.

The node with the lower name dials, by agreement of whoever calls :meth:`Links.dial`.
Where both have dialed, each side sees both hellos, and both keep the connection that
the lower name has dialed.  A node in a new life takes the place of its old one, which
is refused from then on; and a peer that dials again has seen the old connection end:
the new one counts.

All tasks are in the nursery of :func:`open_links`; leaving its block says goodbye on
every link.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import attrs
import trio

from atomr import telemetry
from atomr.crdt.origin import Origin
from atomr.errors import LinkDownError, LinkRefusedError
from atomr.http2.core import Core, log
from atomr.http2.events import Reason
from atomr.http2.handshake import Greeted, Self, greet_accepted, greet_dialed
from atomr.http2.heartbeat import Heartbeat
from atomr.http2.identity import MIN_COOKIE_BYTES, node_uri
from atomr.http2.link import Link
from atomr.http2.running import run_link
from atomr.http2.said_often import SaidOften
from atomr.http2.services import Service
from atomr.http2.tls import Credentials
from atomr.http2.unreached import why_unreached

MAX_HANDSHAKES = 64
"""Connections that may be in their handshake at once; one more is closed unread."""

Services: TypeAlias = Mapping[str, Service[Any]]


_above_0 = attrs.validators.gt(0.0)


def _long_enough(_: object, __: object, cookie: bytes) -> None:
    if len(cookie) < MIN_COOKIE_BYTES:
        raise ValueError(
            f"cookie of {len(cookie)} bytes: expected at least {MIN_COOKIE_BYTES},"
            " from a random generator"
        )


@attrs.frozen
class LinkOptions:
    """Who a node is, and how patient it is with its peers.

    Attributes:
        cluster: nodes of another one are refused.
        origin: our name, and the boot id of this life.
        cookie: the cluster's secret, at least 16 bytes.
        credentials: our certificate, and whom we believe.
        heartbeat_interval_s: between two PINGs and probes.
        heartbeat_timeout_s: a peer that answers none for so long is down.
        handshake_timeout_s: from the connection to the hello.
    """

    cluster: str
    origin: Origin
    cookie: bytes = attrs.field(repr=False, validator=_long_enough)
    credentials: Credentials
    heartbeat_interval_s: float = attrs.field(default=1.0, validator=_above_0)
    heartbeat_timeout_s: float = attrs.field(default=5.0, validator=_above_0)
    handshake_timeout_s: float = attrs.field(default=5.0, validator=_above_0)

    def __attrs_post_init__(self) -> None:
        """Refuse names that have no place in a certificate.

        Raises:
            ValueError: one of them is malformed.
        """
        node_uri(self.cluster, self.origin.name)


@attrs.frozen
class LinkUp:
    """A link has begun.

    Attributes:
        link: the link.
    """

    link: Link


@attrs.frozen
class LinkDown:
    """A link has ended.

    Attributes:
        link: the link.
        error: why.
    """

    link: Link
    error: LinkDownError


@attrs.frozen
class LinkRefused:
    """A connection that somebody opened to us came to nothing.

    Attributes:
        error: why.
    """

    error: LinkRefusedError


LinkEvent: TypeAlias = LinkUp | LinkDown | LinkRefused
Observer: TypeAlias = Callable[[LinkEvent], None]


def _ignore(_: LinkEvent) -> None:
    return


@asynccontextmanager
async def open_links(
    options: LinkOptions,
    services: Services = MappingProxyType({}),
    *,
    observer: Observer = _ignore,
) -> AsyncIterator[Links]:
    """Be a node that others can have links with, for a block.

    Args:
        options: who we are.
        services: what we do for peers, by name.
        observer: called when a link comes and goes; quick, does not wait.

    Cancellation: all links end, and their peers are told.
    """
    block = trio.open_nursery()
    nursery = await block.__aenter__()
    try:
        yield Links(options, services, observer=observer, nursery=nursery)
    finally:
        nursery.cancel_scope.cancel()
        # The block's own error is kept out of the nursery, which would wrap it.
        await block.__aexit__(None, None, None)


class Links:
    """The links of one node; see :func:`open_links`."""

    def __init__(
        self,
        options: LinkOptions,
        services: Services,
        *,
        observer: Observer,
        nursery: trio.Nursery,
    ) -> None:
        self._options = options
        self._credentials = options.credentials
        self._services = services
        self._observer = observer
        self._nursery = nursery
        self._links: dict[str, Link] = {}
        self._said = SaidOften()
        self._dialing: dict[str, trio.Lock] = {}
        self._handshakes = 0

    @property
    def origin(self) -> Origin:
        """This node, in its present life."""
        return self._options.origin

    def get(self, node: str) -> Link | None:
        """Return the link with a node; None where there is none now."""
        return self._links.get(node)

    def all(self) -> tuple[Link, ...]:
        """Return all links that are up."""
        return tuple(self._links.values())

    def reload(self, credentials: Credentials) -> None:
        """Use other certificates from the next handshake on; links stay as they are."""
        self._credentials = credentials

    async def listen(self, host: str | None, port: int) -> int:
        """Accept connections from now on.

        Args:
            host: the address to listen at; None: all.
            port: 0 for any that is free.

        Returns:
            The port.

        Raises:
            OSError: it is in use, or not ours.
        """
        listeners = await trio.open_tcp_listeners(port, host=host)
        await self.serve(listeners)
        name = listeners[0].socket.getsockname()
        return int(name[1])

    async def serve(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Accept connections from now on, at sockets that listen already.

        Args:
            listeners: closed with the links.
        """
        serve = partial(trio.serve_listeners, handler_nursery=self._nursery)
        await self._nursery.start(serve, self._accept, listeners)

    async def dial(self, node: str | None, host: str, port: int) -> Link:
        """Return the link with a node; open it where there is none.

        Args:
            node: its name, which its certificate must say; None: whoever of the
                cluster is there.
            host: where it listens.
            port: where it listens.

        Raises:
            LinkRefusedError: it cannot be reached, or one side does not believe the
                other; the reason says which.
        """
        if node is None:
            return await self._dial(None, host, port)
        lock = self._dialing.setdefault(node, trio.Lock())
        try:
            async with lock:
                return self._links.get(node) or await self._dial(node, host, port)
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._dialing.pop(node, None)

    async def _dial(self, node: str | None, host: str, port: int) -> Link:
        timeout_s = self._options.handshake_timeout_s
        whom = node or f"{host}:{port}"
        try:
            with trio.fail_after(timeout_s):
                greeted = await self._greet(node, host, port, whom=whom)
        except trio.TooSlowError as error:
            detail = f"no handshake with {host}:{port} within {timeout_s} s"
            raise LinkRefusedError(whom, Reason.TOO_SLOW, detail) from error
        except LinkRefusedError as error:
            link = self._links.get(str(error.peer))
            if error.reason == Reason.DUPLICATE and link is not None:
                return link
            raise
        return self._begin(greeted)

    async def _greet(
        self, node: str | None, host: str, port: int, *, whom: str
    ) -> Greeted:
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError as error:
            detail = f"nobody answers at {host}:{port} ({why_unreached(error)})"
            raise LinkRefusedError(whom, Reason.UNREACHABLE, detail) from error
        return await greet_dialed(
            stream, self._self(), node=node, wanted=self._has_no_link
        )

    def _has_no_link(self, node: str) -> bool:
        return node not in self._links

    async def _accept(self, stream: trio.SocketStream) -> None:
        if self._handshakes >= MAX_HANDSHAKES:
            stream.socket.close()
            return
        self._handshakes += 1
        try:
            with trio.fail_after(self._options.handshake_timeout_s):
                greeted = await greet_accepted(
                    stream, self._self(), admit=partial(self._admit, dialed=False)
                )
        except trio.TooSlowError:
            detail = f"no handshake within {self._options.handshake_timeout_s} s"
            self._refused(LinkRefusedError("a peer", Reason.TOO_SLOW, detail))
        except LinkRefusedError as error:
            self._refused(error)
        else:
            self._begin(greeted)
        finally:
            self._handshakes -= 1

    def _self(self) -> Self:
        options = self._options
        return Self(options.cluster, options.origin, options.cookie, self._credentials)

    def _admit(self, peer: Origin, *, dialed: bool) -> Origin | None:
        """Return with whom there is a link that stays; else the old one ends."""
        link = self._links.get(peer.name)
        if link is None:
            return None
        if peer.boot < link.peer.boot:
            # Else two processes of one name take the link from each other for ever.
            return link.peer
        ours_is_lower = self.origin.name < peer.name
        if link.peer == peer and link.dialed == ours_is_lower != dialed:
            return link.peer
        link.end(Reason.REPLACED, "another connection with that node took its place")
        return None

    def _begin(self, greeted: Greeted) -> Link:
        if self._admit(greeted.peer, dialed=greeted.protocol.dialed) is not None:
            # Another one was there first, while the hello was under way.
            greeted.pipe.close()
            return self._links[greeted.peer.name]
        options = self._options
        core = Core(
            greeted.pipe,
            greeted.protocol,
            peer=greeted.peer,
            services=self._services,
            heartbeat=Heartbeat(
                interval_s=options.heartbeat_interval_s,
                timeout_s=options.heartbeat_timeout_s,
                now_s=trio.current_time(),
                dialed=greeted.protocol.dialed,
            ),
        )
        link = Link(core)
        self._links[greeted.peer.name] = link
        core.at_end(partial(self._ended, link, trio.current_time()))
        telemetry.emit(
            ("atomr", "link", "up"),
            metadata={"peer": link.peer, "dialed": link.dialed},
        )
        self._observe(LinkUp(link))
        self._nursery.start_soon(self._run, core, link, greeted)
        return link

    async def _run(self, core: Core, link: Link, greeted: Greeted) -> None:
        try:
            await run_link(core, link, greeted.early)
        except Exception:  # noqa: BLE001 - a boundary: reported, and the link has ended
            log.exception("link to %s failed; please report this", link.peer)

    def _ended(self, link: Link, began_at: float) -> None:
        if self._links.get(link.peer.name) is link:
            del self._links[link.peer.name]
        error = link.down
        assert error is not None
        telemetry.emit(
            ("atomr", "link", "down"),
            {"lived_s": trio.current_time() - began_at},
            {"peer": link.peer, "reason": error.reason, "detail": error.detail},
        )
        self._observe(LinkDown(link, error))

    def _refused(self, error: LinkRefusedError) -> None:
        # That both sides dial at once happens.
        if error.reason == Reason.DUPLICATE:
            log.debug("%s", error)
        else:
            more = self._said.now((error.peer, error.reason), trio.current_time())
            if more is not None:
                again = f" ({more} times more since this was said last)" if more else ""
                log.warning("%s%s", error, again)
        telemetry.emit(
            ("atomr", "link", "refused"),
            metadata={
                "peer": error.peer,
                "reason": error.reason,
                "detail": error.detail,
            },
        )
        self._observe(LinkRefused(error))

    def _observe(self, event: LinkEvent) -> None:
        try:
            self._observer(event)
        except Exception:  # noqa: BLE001 - a boundary: reported
            log.exception("an observer of links failed on %r", event)
