"""The results of a stream of tasks: what ``async for`` goes through.

See :mod:`atomr.otp.task_stream` for what a stream promises, and
:class:`~atomr.core.task_stream.StreamWindow` for what may run when.

Everything but :meth:`TaskResults.__anext__` and :meth:`TaskResults.close` is
synchronous: a task that ends, and the clock, put a result into the window and
wake the consumer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import attrs
import trio

from atomr.core.checks import check_count, check_member, check_seconds
from atomr.core.child_spec import (
    BRUTAL_KILL,
    DEFAULT_SHUTDOWN_S,
    ShutdownTime,
    check_shutdown,
)
from atomr.core.exits import NORMAL, ExitReason
from atomr.core.task_stream import StreamWindow
from atomr.errors import TaskExitError, TaskTimeoutError
from atomr.otp.task_body import (
    NOTHING,
    Done,
    Exited,
    Sink,
    TaskBody,
    callers_of,
    owner_now,
)
from atomr.otp.task_supervisor import task_supervisor
from atomr.process.calls import DEFAULT_TIMEOUT_S
from atomr.process.context import current_node, find_process
from atomr.process.parking import ParkSpot
from atomr.process.plain import PlainProcess
from atomr.process.stopping import begin_stop, wait_ended
from atomr.refs import Address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from atomr.process.process import Process

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_MAX_CONCURRENCY: Final = 8
"""Elixir takes the number of schedulers.  Here there is one, and tasks that run
at the same time are tasks that wait at the same time: what bounds them is the
other side, not the machine, so the default is the same on each."""


class OnItemTimeout(Enum):
    """What happens when a task takes longer than its time."""

    EXIT = "exit"
    """the stream fails: the consumer gets ``TaskTimeoutError``"""
    KILL_TASK = "kill_task"
    """the task is killed; its result is ``ItemExited(TaskTimeoutError, item)``"""


@attrs.frozen
class ItemExited(Exited, Generic[T]):
    """The task of an item ended without a value.

    Elixir gives the item with ``zip_input_on_exit`` only; here it always is.

    Attributes:
        reason: the task's exit reason; ``TaskTimeoutError`` when it took too long.
        item: what was taken out of the input.
    """

    item: T


@attrs.frozen(kw_only=True)
class Options:
    """How a stream runs its tasks; see ``StreamOptions`` for the fields."""

    supervisor: Address
    linked: bool
    max_concurrency: int = DEFAULT_MAX_CONCURRENCY
    ordered: bool = True
    timeout_s: float | None = DEFAULT_TIMEOUT_S
    on_timeout: OnItemTimeout = OnItemTimeout.EXIT
    shutdown: ShutdownTime = DEFAULT_SHUTDOWN_S

    def __attrs_post_init__(self) -> None:
        check_count("max_concurrency", self.max_concurrency, least=1)
        if self.timeout_s is not None:
            check_seconds("timeout_s", self.timeout_s)
        check_member("on_timeout", self.on_timeout, OnItemTimeout)
        check_shutdown(self.shutdown)


class _Item(Sink, Generic[T, R]):
    """One item that runs."""

    __slots__ = ("item", "position", "process", "results", "timed_out")

    process: Process
    position: int

    def __init__(self, results: TaskResults[T, R], item: T) -> None:
        self.value = NOTHING
        self.results = results
        self.item = item
        self.timed_out = False

    def ended(self, reason: ExitReason) -> None:
        self.results.item_ended(self, reason)

    def expire(self, timeout_s: float) -> None:
        self.timed_out = True
        self.results.item_expired(self, timeout_s)


class TaskResults(Generic[T, R]):
    """The results of a stream, for one ``async for`` at a time.

    A result that is there already comes without a checkpoint; at most twice
    ``max_concurrency`` in a row do.
    """

    def __init__(
        self,
        items: Iterable[T] | AsyncIterable[T],
        fn: Callable[[T], Awaitable[R]],
        options: Options,
    ) -> None:
        self._fn = fn
        self._options = options
        self._owner = owner_now()
        self._callers = callers_of(self._owner)
        self._window: StreamWindow[Done[R] | ItemExited[T]] = StreamWindow(
            options.max_concurrency, ordered=options.ordered
        )
        self._running: set[_Item[T, R]] = set()
        self._failure: BaseException | None = None
        self._closed = False
        self._owner_ends = False
        self._spot = ParkSpot()
        self._input: _Input[T, R] | None = None
        self._items: Iterator[T] | None = None
        if isinstance(items, AsyncIterable):
            self._input = _Input(self, items)
        else:
            self._items = iter(items)

    def __aiter__(self) -> TaskResults[T, R]:
        return self

    async def __anext__(self) -> Done[R] | ItemExited[T]:
        """Return the next result.

        Raises:
            TaskTimeoutError: a task took too long, with ``OnItemTimeout.EXIT``.
            TaskExitError: a task of a linked stream ended abnormally, and the
                consumer is no process that could end with it.
            NoProcessError, StartError: the supervisor cannot take a task.
            ClosedResourceError: the block has been left.
            BusyResourceError: another trio task waits for a result.
            Exception: what the input raised.

        Cancellation: takes no result.
        """
        if self._spot.task is not None:
            raise trio.BusyResourceError("another task waits for this stream")
        while True:
            if self._failure is None:
                self._fill()
            if self._failure is not None:
                raise self._failure
            if self._owner_ends:
                # Here its end arrives, before it sees what ended it.
                await trio.lowlevel.checkpoint()
            if self._window.ready:
                return self._window.take()
            if self._window.exhausted:
                raise StopAsyncIteration
            await self._spot.park(trio.lowlevel.current_task())

    # --- input -------------------------------------------------------------------

    @property
    def may_pull(self) -> bool:
        """Whether another item may be taken out of the input."""
        return self._window.may_pull and self._failure is None

    @property
    def failed(self) -> bool:
        """Whether nothing more may begin: it failed, or the block was left."""
        return self._failure is not None

    def _fill(self) -> None:
        if self._input is not None:
            self._input.begin_or_go_on()
            return
        assert self._items is not None, "an input is the one or the other"
        try:
            while self._window.may_pull:
                try:
                    item = next(self._items)
                except StopIteration:
                    self._window.close()
                    return
                self.start(item)
        except Exception as error:  # noqa: BLE001 - raised by the caller, each time
            self._fail(error)

    def start(self, item: T) -> None:
        """Start the task of an item.

        Raises:
            NoProcessError: the supervisor is not there.
            StartError: it cannot take a task.
        """
        options = self._options
        top = task_supervisor(options.supervisor, "async_stream")
        running = _Item(self, item)
        body = TaskBody(self._fn, (item,), callers=self._callers, sink=running)
        running.process = top.run_task(body, options.shutdown)
        running.position = self._window.pulled()
        self._running.add(running)
        if options.timeout_s is not None:
            running.process.node.timers.bucket(options.timeout_s).add(running)

    def input_ended(self, failure: BaseException | None) -> None:
        """Take note that an async input is over."""
        self._window.close()
        if failure is not None:
            self._fail(failure)
        self._spot.wake()

    # --- ends -----------------------------------------------------------------------

    def item_ended(self, item: _Item[T, R], reason: ExitReason) -> None:
        """Take note of a task's end; called by its process."""
        self._running.discard(item)
        timeout_s = self._options.timeout_s
        if timeout_s is not None:
            item.process.node.timers.bucket(timeout_s).calls.pop(item, None)
        if not self._closed:
            self._settle(item, reason)
            self._look()
        # It refers to the item in turn: no cycle is left for the collector.
        del item.process

    def _settle(self, item: _Item[T, R], reason: ExitReason) -> None:
        timeout_s = self._options.timeout_s
        if reason is NORMAL and item.value is not NOTHING:
            value: R = item.value  # type: ignore[assignment]  # by its function
            self._window.settle(item.position, Done(value))
        else:
            if item.timed_out and timeout_s is not None:
                reason = TaskTimeoutError(item.process.pid, timeout_s)
            elif self._options.linked and reason is not NORMAL:
                self._fail_owner(item, reason)
            self._window.settle(item.position, ItemExited(reason, item.item))

    def item_expired(self, item: _Item[T, R], timeout_s: float) -> None:
        """Act on a task that takes too long; called by the clock."""
        if self._options.on_timeout is OnItemTimeout.KILL_TASK:
            begin_stop(item.process, BRUTAL_KILL)
        else:
            self._fail(TaskTimeoutError(item.process.pid, timeout_s))
            self._spot.wake()

    # What a link does, but without a message for each task that ends in order.
    def _fail_owner(self, item: _Item[T, R], reason: ExitReason) -> None:
        if self._owner is None:
            self._fail(TaskExitError(item.process.pid, reason))
        elif not self._owner.trapping:
            self._owner_ends = True
            self._owner.exit_signal(reason, item.process.pid)

    def _fail(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure

    def _look(self) -> None:
        window = self._window
        pull = window.may_pull
        if pull and self._input is not None:
            self._input.go_on()
            pull = False
        if pull or window.ready or window.exhausted or self._failure is not None:
            self._spot.wake()

    async def close(self) -> None:
        """Stop all tasks and the input, and wait until they have ended."""
        self._closed = True
        self._failure = trio.ClosedResourceError("the block of the stream was left")
        processes = [item.process for item in self._running]
        for process in processes:
            begin_stop(process, process.shutdown)
        if self._input is not None and self._input.process is not None:
            processes.append(self._input.process)
            begin_stop(self._input.process, DEFAULT_SHUTDOWN_S)
        if any(process.reason is None for process in processes):
            with trio.CancelScope(shield=True):
                await wait_ended(processes)
        self._spot.close()
        if isinstance(self._items, Generator):
            self._items.close()


class _Input(Generic[T, R]):
    """Reads an async input, in one task from the first item to its closing."""

    __slots__ = ("_failure", "_items", "_results", "_spot", "process")

    def __init__(self, results: TaskResults[T, R], items: AsyncIterable[T]) -> None:
        self._results = results
        self._items = items
        self._spot = ParkSpot()
        self._failure: Exception | None = None
        self.process: Process | None = None

    def begin_or_go_on(self) -> None:
        """Start the process at the first demand, wake it at the next."""
        if self.process is not None:
            self.go_on()
            return
        reader = PlainProcess(self._run)
        pid = current_node().spawn(reader, label="input of a stream", name=None)
        self.process = find_process(pid)
        assert self.process is not None, "it has not run yet"
        # Also when it is killed before it has run.
        self.process.on_end = {self: self._ended}

    def go_on(self) -> None:
        """Look whether another item may be taken."""
        self._spot.wake()

    def _ended(self) -> None:
        process = self.process
        assert process is not None, "it has just ended"
        assert process.reason is not None, "the same"
        failure: Exception | None = self._failure
        if failure is None and process.reason is not NORMAL:
            failure = TaskExitError(process.pid, process.reason)
        self._results.input_ended(failure)
        self._spot.close()

    async def _run(self) -> None:
        try:
            await self._pull()
        except Exception as error:  # noqa: BLE001 - raised in the consumer
            self._failure = error

    async def _pull(self) -> None:
        task = trio.lowlevel.current_task()
        results = self._results
        iterator = aiter(self._items)
        try:
            while True:
                while not results.may_pull:
                    await self._spot.park(task)
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    return
                # An input may give one more item though it was cancelled.
                if results.failed:
                    return
                results.start(item)
        finally:
            if isinstance(self._items, AsyncGenerator):
                await self._items.aclose()
