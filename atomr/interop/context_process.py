"""What lives in an ``async with``, as a supervised process.

::

    child(ContextProcess.of(open_pool, url), name="pool", init_timeout_s=5.0)

    pool = value_of("pool", Pool)

The context manager is entered during ``init``: its error fails the start, and
``init_timeout_s`` bounds it.  It is left at the end:

================================  ============================================
why it ends                       how it is left
================================  ============================================
a stop; all around is cancelled   as if its block had ended
an exit signal with an error      with that error, as if its block had raised
                                  it: so a transaction is rolled back
its body was cancelled, as by a   as it says; what it raises is the exit reason
nursery inside it that crashed
================================  ============================================

Leaving has the shutdown time; then it is cancelled, and the reason is
``KILLED``.

:class:`ServiceProcess` does the same for functions that ``nursery.start`` takes.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar, TypeVarTuple, Unpack, overload

import trio

from atomr.core.checks import check_async
from atomr.core.exits import NORMAL, ExitReason, unwrap
from atomr.errors import NoProcessError
from atomr.interop.hosting import Hosted, HostedProcess
from atomr.process.behaviour import Startable
from atomr.process.context import find_process
from atomr.process.process import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from atomr.process.task_process import TaskProcess
    from atomr.refs import Address

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _HasValue(Startable, Generic[T]):
    value: T


class ContextProcess(Hosted, _HasValue[T]):
    """Holds an async context manager open.

    Args:
        open_: returns the context manager.
    """

    def __init__(self, open_: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        super().__init__()
        self._open = open_
        self._entered = False
        self._end = trio.Event()
        self._error: BaseException | None = None

    @classmethod
    def of(
        cls,
        open_: Callable[[Unpack[Ts]], AbstractAsyncContextManager[T]],
        *args: *Ts,
    ) -> Callable[[], ContextProcess[T]]:
        """Return what a child specification starts: opened anew each time."""

        def start() -> ContextProcess[T]:
            return cls(lambda: open_(*args))

        start.__name__ = getattr(open_, "__name__", type(open_).__name__)
        return start

    def system_state(self) -> object:
        """Return the value."""
        return self.value

    async def work(self, process: HostedProcess) -> None:
        """Enter, hold and leave."""
        try:
            async with self._open() as self.value:
                self._entered = True
                process.started()
                await self._end.wait()
                self._raise_error()
        except BaseException as error:
            # It was told to us; what else it raises is news.
            if self._error is None or unwrap(error) is not self._error:
                raise

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def ask(self, reason: ExitReason, scope: trio.CancelScope) -> None:
        """Leave; if it is not entered yet, that is cancelled."""
        if isinstance(reason, BaseException):
            self._error = reason
        self._end.set()
        if not self._entered:
            scope.cancel()


class ServiceProcess(_HasValue[object]):
    """Runs ``fn(*args, task_status=...)``, as ``nursery.start`` does.

    ``init`` is done when the function calls ``task_status.started(value)``; the
    value is what :func:`value_of` returns.  Otherwise it is a plain process: a
    stop cancels it, its return is ``NORMAL``, its exception the exit reason.

    Args:
        fn: async function with a keyword argument ``task_status``.
        args: its arguments; as with ``nursery.start``, types are not checked.
    """

    def __init__(self, fn: Callable[..., Awaitable[object]], *args: object) -> None:
        self._fn = fn
        self._args = args
        self._label = getattr(fn, "__name__", type(fn).__name__)

    @classmethod
    def of(
        cls, fn: Callable[..., Awaitable[object]], *args: object
    ) -> Callable[[], ServiceProcess]:
        """Return what a child specification starts: a fresh run each time.

        Raises:
            TypeError: ``fn`` is no async function.
        """
        check_async("ServiceProcess.of()", fn)

        def start() -> ServiceProcess:
            return cls(fn, *args)

        start.__name__ = getattr(fn, "__name__", type(fn).__name__)
        return start

    def process_label(self) -> str:
        """Return the function's name."""
        return self._label

    async def run_process(self, process: TaskProcess) -> ExitReason:
        """Run the function."""
        await self._fn(*self._args, task_status=_Status(self, process))
        if not process.was_started:
            raise RuntimeError(
                f"{self._label} returned without calling task_status.started()"
            )
        return NORMAL


class _Status:
    """The ``task_status`` of one process."""

    def __init__(self, service: ServiceProcess, process: TaskProcess) -> None:
        self._service = service
        self._process = process

    def started(self, value: object = None) -> None:
        """Let the starter go on."""
        if self._process.status is not Status.STARTING:
            raise RuntimeError("task_status.started() was called twice")
        self._service.value = value
        self._process.started()


@overload
def value_of(address: Address) -> object: ...
@overload
def value_of(address: Address, kind: type[T]) -> T: ...
def value_of(address: Address, kind: type[object] = object) -> object:
    """Return what a ContextProcess or a ServiceProcess holds.

    Ask for it each time: after a restart it is another one.  A value that is
    kept is of no use when its process has ended.

    Args:
        address: pid or name.
        kind: what the value is, checked.

    Raises:
        NoProcessError: it is not there: it ended, or has not started.
        TypeError: the process holds no value, or none of that kind.
    """
    process = find_process(address)
    if process is None or not process.was_started:
        raise NoProcessError(address, "value_of()")
    behaviour = process.behaviour
    if not isinstance(behaviour, _HasValue):
        problem = f"a {behaviour.process_label()} holds no value"
        raise TypeError(f"value_of({address!r}): {problem}")
    value: object = behaviour.value
    if not isinstance(value, kind):
        problem = f"expected a {kind.__name__}, not a {type(value).__name__}"
        raise TypeError(f"value_of({address!r}): {problem}")
    return value


@asynccontextmanager
async def open_service_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks are cancelled when its block is left.

    With ``ContextProcess.of(open_service_nursery)`` a place for tasks that
    nobody waits for: a stop cancels them, and one that crashes ends the others
    and the process, with its error as the reason.
    """
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()
