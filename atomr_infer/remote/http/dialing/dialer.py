"""Opens connections to one origin, and says in words why one could not be made.

Errors carry a ``code`` where something can be done about them: ``dns``,
``tls``, ``proxy``, ``connect_timeout`` or ``total_timeout``.
"""

from __future__ import annotations

import socket
from enum import Enum
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import UpstreamConnectError, UpstreamError, UpstreamTimeoutError
from atomr_infer.remote.http.dialing.proxy import Proxy
from atomr_infer.remote.http.dialing.tcp import Connect
from atomr_infer.remote.http.dialing.tls import tls_problem
from atomr_infer.remote.http.dialing.tunnel import ProxyRefusedError
from atomr_infer.remote.http.http1 import FramingError, PeerClosedError
from atomr_infer.remote.http.origin import Origin
from atomr_infer.remote.http.phases import TRANSPORT_ERRORS, Phase, describe
from atomr_infer.remote.http.pipe import Pipe, open_pipe

if TYPE_CHECKING:
    from atomr_infer.remote.http.exchange import Call


class Http2(Enum):
    """When HTTP/2 is spoken.

    Attributes:
        OFF: never.
        ALPN: when the TLS handshake agrees on it.
        PRIOR_KNOWLEDGE: always, in clear text too.
    """

    OFF = "off"
    ALPN = "alpn"
    PRIOR_KNOWLEDGE = "prior-knowledge"


@attrs.frozen
class Opened:
    """A fresh connection.

    Attributes:
        pipe: its bytes.
        speaks_http2: what is spoken on it.
        connect_s: how long it took, TLS included.
    """

    pipe: Pipe
    speaks_http2: bool
    connect_s: float


@attrs.frozen(kw_only=True)
class Dialer:
    """The way to an origin.

    Attributes:
        origin: where it is.
        connect: opens a stream to it.
        http2: when HTTP/2 is spoken.
        proxy: what ``connect`` goes through; None: nothing.
        tunnels: False when the proxy reads the requests.
    """

    origin: Origin
    connect: Connect
    http2: Http2
    proxy: Proxy | None = None
    tunnels: bool = True

    @property
    def may_share(self) -> bool:
        """True when a connection may turn out to carry many exchanges."""
        if self.http2 is Http2.ALPN:
            return self.origin.tls
        return self.http2 is Http2.PRIOR_KNOWLEDGE

    async def dial(self, call: Call, due_at: float) -> Opened:
        """Open a connection.

        Args:
            call: whose limits apply.
            due_at: the instant by which there must be one.

        Raises:
            UpstreamConnectError: there is none.
            UpstreamTimeoutError: it took too long.
        """
        started_at = trio.current_time()
        try:
            with trio.fail_at(due_at):
                stream = await self.connect(self.origin)
        except trio.TooSlowError as error:
            raise self.too_slow(call, due_at) from error
        except (*TRANSPORT_ERRORS, ProxyRefusedError) as error:
            raise self.fault(error) from error
        pipe = open_pipe(stream)
        speaks_http2 = self.http2 is Http2.PRIOR_KNOWLEDGE or (
            self.http2 is Http2.ALPN and pipe.alpn == "h2"
        )
        return Opened(pipe, speaks_http2, trio.current_time() - started_at)

    def too_slow(self, call: Call, due_at: float) -> UpstreamError:
        """Return the error for a connection that took too long."""
        phase = Phase.TOTAL if due_at == call.total_at else Phase.CONNECT
        seconds = call.timeouts.of(phase)
        return UpstreamTimeoutError(
            f"no connection to {self._named} within {seconds:g} s",
            code=f"{phase.value}_timeout",
        )

    def fault(self, error: BaseException) -> UpstreamConnectError:
        """Return the error for what kept a connection from being made."""
        code, problem = _problem(error, self.proxy)
        return UpstreamConnectError(
            f"no connection to {self._named}: {problem}", code=code
        )

    @property
    def _named(self) -> str:
        if self.proxy is None:
            return str(self.origin)
        return f"{self.origin} through the proxy {self.proxy}"


def _problem(error: BaseException, proxy: Proxy | None) -> tuple[str | None, str]:
    """Return the code and the words for what kept a connection from being made."""
    if isinstance(error, socket.gaierror):
        whose = "its name" if proxy is None else "the proxy's name"
        return "dns", f"{whose} does not resolve ({error.strerror})"
    if isinstance(error, ProxyRefusedError | FramingError | PeerClosedError):
        return "proxy", str(error)
    problem = tls_problem(error)
    if problem is not None:
        return "tls", problem
    return None, describe(error)
