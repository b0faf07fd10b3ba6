"""Calls from trio into the loop of an :class:`~atomr.interop.AsyncioProcess`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple, Unpack

import trio
from trio.lowlevel import Abort

from atomr.core.checks import check_async
from atomr.errors import (
    AsyncioCancelledError,
    CallError,
    CallTimeoutError,
    NoProcessError,
)
from atomr.interop.asyncio_process import AsyncioProcess
from atomr.interop.jobs import Job
from atomr.process.calls import DEFAULT_TIMEOUT_S, CallState, From
from atomr.process.context import CURRENT, find_process
from atomr.process.parking import ParkSpot

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from atomr.refs import Address

S = TypeVar("S")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class AsyncioRef(Generic[S]):
    """An asyncio process' address, and what its resource is, for type checkers.

    Args:
        server: pid or name.
    """

    __slots__ = ("server",)

    def __init__(self, server: Address) -> None:
        self.server = server

    async def call(
        self,
        function: Callable[[S, Unpack[Ts]], Awaitable[R]],
        *args: *Ts,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> R:
        """Run ``await function(resource, *args)`` in the loop.

        Raises:
            Exception: what it raised.
            CallError: as for :func:`call_asyncio`.

        Cancellation: as for :func:`call_asyncio`.
        """
        check_async("AsyncioRef.call()", function)
        job = Job[R](function, args, uses_resource=True)
        return await _call(self.server, job, timeout_s)

    def stream(
        self, function: Callable[[S, Unpack[Ts]], AsyncIterator[T]], *args: *Ts
    ) -> AbstractAsyncContextManager[AsyncIterator[T]]:
        """Iterate over ``function(resource, *args)``: see :func:`stream_asyncio`."""
        return _stream(self.server, function, args, uses_resource=True)


async def call_asyncio(
    server: Address,
    function: Callable[[Unpack[Ts]], Awaitable[R]],
    *args: *Ts,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> R:
    """Run ``await function(*args)`` in the loop of an ``AsyncioProcess``.

    It is a task of its own there, in a copy of the caller's context; calls run
    side by side.

    Args:
        server: pid or name.
        function: coroutine function of asyncio.
        args: its arguments.
        timeout_s: bound in seconds; None: no bound.

    Raises:
        Exception: what it raised.
        NoProcessError: there is no such process.
        ServerDownError: the loop ended before it was done.
        CallTimeoutError: not done in time; it was cancelled, and has ended.
        AsyncioCancelledError: something in the loop cancelled it.
        TypeError: that process is no ``AsyncioProcess``, or ``function`` no
            coroutine function.

    Cancellation: cancels the task in the loop, and waits for its end.  A value
    that it returns all the same is returned here.
    """
    check_async("call_asyncio()", function)
    job = Job[R](function, args, uses_resource=False)
    return await _call(server, job, timeout_s)


def stream_asyncio(
    server: Address,
    function: Callable[[Unpack[Ts]], AsyncIterator[T]],
    *args: *Ts,
) -> AbstractAsyncContextManager[AsyncIterator[T]]:
    """Iterate in trio over an async generator of asyncio.

    ::

        async with stream_asyncio("http", lines, url) as items:
            async for line in items:
                ...

    The generator is asked for one item at a time, when one is wanted, so it
    never runs ahead of its reader.  It runs in one task of the loop; leaving
    the block closes it there, and waits for that.

    Args:
        server: pid or name.
        function: returns an async iterator of asyncio.
        args: its arguments.

    Raises:
        Exception: what the generator raised, from the iteration; from leaving
            the block what it raised when it was closed.
        CallError: as for :func:`call_asyncio`.
        TypeError: that process is no ``AsyncioProcess``.

    Cancellation: of the wait for an item loses none: the next wait gets it.
    """
    return _stream(server, function, args, uses_resource=False)


class _CallSpot(ParkSpot):
    """Where a caller sleeps that goes on only when the asyncio task has ended."""

    __slots__ = ("cancel", "raise_cancel")

    def __init__(self, cancel: Callable[[], None]) -> None:
        super().__init__()
        self.cancel = cancel
        self.raise_cancel: Any = None

    def abort(self, raise_cancel: object) -> Abort:
        """Cancel the asyncio task; the sleep goes on."""
        self.raise_cancel = raise_cancel
        self.cancel()
        return Abort.FAILED


def _begin(server: Address, job: Job[Any]) -> tuple[AsyncioProcess[Any], From]:
    process = find_process(server)
    if process is None:
        raise NoProcessError(server, job)
    behaviour = process.behaviour
    if not isinstance(behaviour, AsyncioProcess):
        problem = f"expected an AsyncioProcess, not a {behaviour.process_label()}"
        raise TypeError(f"call({server!r}, {job!r}): {problem}")
    ref = From(job, server, process, CURRENT.get())
    # Whatever happens, it fails with its process.
    ref.set_aside()
    behaviour.begin(ref)
    return behaviour, ref


async def _call(server: Address, job: Job[R], timeout_s: float | None) -> R:
    await trio.lowlevel.checkpoint_if_cancelled()
    behaviour, ref = _begin(server, job)
    spot = _CallSpot(lambda: behaviour.end(ref))
    ref.spot = spot
    bound_s = float("inf") if timeout_s is None else timeout_s
    with trio.move_on_after(bound_s) as scope:
        try:
            await spot.park(trio.lowlevel.current_task())
            value: R = _result(ref, spot)
        finally:
            spot.close()
        return value
    assert scope.cancelled_caught, "there is no other way out"
    raise CallTimeoutError(server, job, bound_s)


def _result(ref: From, spot: _CallSpot) -> Any:  # noqa: ANN401 - the job's type says
    if ref.state is CallState.REPLIED:
        return ref.value
    if spot.raise_cancel is not None and isinstance(ref.error, AsyncioCancelledError):
        # It ended because we did.
        spot.raise_cancel()
    raise ref.error


class _Stream(Generic[T]):
    """An async generator in the loop, and the items that came from it."""

    def __init__(self, function: Callable[..., AsyncIterator[T]]) -> None:
        self._function = function
        self._wanted = asyncio.Event()
        self._asked = False
        self._items: list[T] = []
        self._spot = ParkSpot()
        self._waits = False
        self._failed = False
        self._behaviour: AsyncioProcess[Any]
        self._ref: From

    def begin(self, server: Address, job: Job[None]) -> None:
        """Let the generator's task begin."""
        self._behaviour, self._ref = _begin(server, job)
        self._ref.spot = self._spot

    async def pump(self, *args: object) -> None:
        """Run the generator, an item for each time that one is wanted; asyncio."""
        items = self._function(*args)
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
                self._behaviour.post(self._put, item)
        finally:
            aclose = getattr(items, "aclose", None)
            if aclose is not None:
                await aclose()

    def _put(self, item: T) -> None:
        self._items.append(item)
        self._spot.wake()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._waits:
            raise trio.BusyResourceError("another task waits for the next item")
        if not self._asked:
            self._asked = True
            self._behaviour.set_soon(self._wanted)
        self._waits = True
        try:
            await self._settle(until_item=True)
        finally:
            self._waits = False
        if self._items:
            self._asked = False
            return self._items.pop()
        if self._ref.state is CallState.REPLIED:
            raise StopAsyncIteration
        self._failed = True
        raise self._ref.error

    async def _settle(self, *, until_item: bool) -> None:
        task = trio.lowlevel.current_task()
        while self._ref.state is CallState.OPEN and not (until_item and self._items):
            await self._spot.park(task)

    async def aclose(self) -> None:
        """Close the generator in the loop, and wait until it is."""
        self._behaviour.end(self._ref)
        with trio.CancelScope(shield=True):
            await self._settle(until_item=False)
        self._spot.close()
        if self._ref.state is CallState.FAILED and not self._failed:
            error = self._ref.error
            # That it was cancelled, or went with its loop, is what was wanted.
            if not isinstance(error, CallError):
                raise error


@asynccontextmanager
async def _stream(
    server: Address,
    function: Callable[..., AsyncIterator[T]],
    args: tuple[object, ...],
    *,
    uses_resource: bool,
) -> AsyncGenerator[AsyncIterator[T], None]:
    stream = _Stream(function)
    job = Job[None](stream.pump, args, uses_resource=uses_resource)
    stream.begin(server, job)
    try:
        yield stream
    finally:
        await stream.aclose()
