"""Whether an origin can be reached: a connection is made, and nothing is asked."""

from __future__ import annotations

import os

import trio

from atomr_infer.errors import UpstreamTimeoutError
from atomr_infer.remote.http.client import dialer_to
from atomr_infer.remote.http.dialing.dialer import Http2
from atomr_infer.remote.http.dialing.proxy import proxies_from
from atomr_infer.remote.http.dialing.tunnel import ProxyRefusedError
from atomr_infer.remote.http.origin import parse_base_url
from atomr_infer.remote.http.phases import TRANSPORT_ERRORS
from atomr_infer.remote.http.pipe import open_pipe


async def reach(base_url: str, *, within_s: float) -> None:
    """Make a connection to a server, TLS and proxies included, and close it.

    Args:
        base_url: the server's.
        within_s: how long it may take, in seconds.

    Raises:
        UpstreamConnectError: there is none, and why.
        UpstreamTimeoutError: it took too long.
        ValueError: it is no URL, or the environment's proxy is none.
    """
    origin = parse_base_url(base_url).origin
    dialer = dialer_to(origin, proxies_from(os.environ).of(origin), None, Http2.OFF)
    try:
        with trio.fail_after(within_s):
            stream = await dialer.connect(origin)
    except trio.TooSlowError as error:
        problem = f"no connection to {origin} within {within_s:g} s"
        raise UpstreamTimeoutError(problem, code="connect_timeout") from error
    except (*TRANSPORT_ERRORS, ProxyRefusedError) as error:
        raise dialer.fault(error) from error
    await open_pipe(stream).close()
