"""One message to many servers: ``multi_call`` and ``abcast``.

Source: OTP ``gen_server:multi_call`` and ``abcast``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import attrs
import trio

from atomr.process.calls import DEFAULT_TIMEOUT_S, Request, call, cast
from atomr.refs import Address

if TYPE_CHECKING:
    from collections.abc import Iterable


R = TypeVar("R")


@attrs.frozen
class MultiReply(Generic[R]):
    """What came of a ``multi_call``.

    Attributes:
        replies: by server, of those that replied.
        failures: by server, why the others did not.
    """

    replies: Mapping[Address, R]
    failures: Mapping[Address, Exception]


@overload
async def multi_call(
    servers: Iterable[Address],
    request: Request[R],
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> MultiReply[R]: ...
@overload
async def multi_call(
    servers: Iterable[Address],
    request: object,
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> MultiReply[object]: ...
async def multi_call(
    servers: Iterable[Address],
    request: object,
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> MultiReply[Any]:
    """Ask several servers the same at the same time, and wait for all.

    One that fails fails alone: it is in ``failures``, with the same exception
    that ``call`` would raise; so is what a server raised by ``Fail``.

    Args:
        servers: pids or names; one named twice is asked once.
        request: what to ask.
        timeout_s: bound in seconds for each, and so for all; None: no bound.

    Cancellation: leaves the servers undisturbed; their replies are dropped.
    """
    replies: dict[Address, object] = {}
    failures: dict[Address, Exception] = {}

    async def ask(server: Address) -> None:
        try:
            replies[server] = await call(server, request, timeout_s=timeout_s)
        except Exception as error:  # noqa: BLE001 - handed on: a CallError, or a Fail
            failures[server] = error

    asked = dict.fromkeys(servers)
    async with trio.open_nursery() as nursery:
        for server in asked:
            nursery.start_soon(ask, server)
    return MultiReply(
        {server: replies[server] for server in asked if server in replies},
        {server: failures[server] for server in asked if server in failures},
    )


def abcast(servers: Iterable[Address], message: object) -> None:
    """Cast the same to several servers; nothing tells who exists."""
    for server in servers:
        cast(server, message)
