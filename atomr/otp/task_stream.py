"""async_stream: a function on each item of an input, so many at the same time.

::

    async with async_stream_nolink("tasks", urls, fetch, max_concurrency=20) as pages:
        async for page in pages:
            match page:
                case Done(text):
                    ...
                case ItemExited(reason, url):
                    ...

Each item is a task under the supervisor.  Input is taken when a result is
asked for, and no more than :class:`~atomr.core.task_stream.StreamWindow`
allows; so a slow consumer stops it.  An async input is read in a process of its
own, so that results do not wait for it.

Leaving the block, in whatever way, stops what runs, and waits for its end: with
the shutdown time of the tasks, and shielded, as a nursery waits for its tasks.

Source: Elixir ``Task.Supervisor.async_stream``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypedDict, TypeVar, Unpack

from atomr.core.checks import check_async
from atomr.core.child_spec import ShutdownTime  # noqa: TC001 - of a TypedDict
from atomr.otp.task_results import OnItemTimeout, Options, TaskResults

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
    from types import TracebackType

    from atomr.refs import Address

T = TypeVar("T")
R = TypeVar("R")


class StreamOptions(TypedDict, total=False):
    """How a stream runs its tasks; the keywords of :func:`async_stream`.

    Attributes:
        max_concurrency: tasks that run at the same time, at least 1; 8.
        ordered: True, the default: results come in the order of the input;
            False: as they are there.
        timeout_s: seconds that one task has; 5; None: no bound.
        on_timeout: what happens when one takes longer; ``EXIT``.
        shutdown: seconds that a task which traps exits has to end when the
            block is left or the supervisor stops, or ``BRUTAL_KILL``; 5.
    """

    max_concurrency: int
    ordered: bool
    timeout_s: float | None
    on_timeout: OnItemTimeout
    shutdown: ShutdownTime


class TaskStream(Generic[T, R]):
    """A stream that has not begun; ``async with`` begins it.

    May be entered again after it was left, if its input may be iterated again.
    """

    __slots__ = ("_fn", "_items", "_options", "_run")

    def __init__(
        self,
        items: Iterable[T] | AsyncIterable[T],
        fn: Callable[[T], Awaitable[R]],
        options: Options,
    ) -> None:
        self._items = items
        self._fn = fn
        self._options = options
        self._run: TaskResults[T, R] | None = None

    async def __aenter__(self) -> TaskResults[T, R]:
        """Return the results; nothing runs before the first is asked for."""
        if self._run is not None:
            raise RuntimeError(f"{self._fn!r}: its stream has been entered already")
        self._run = TaskResults(self._items, self._fn, self._options)
        return self._run

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop what runs and wait for its end, whatever happens around."""
        run, self._run = self._run, None
        assert run is not None, "left after it was entered"
        await run.close()


# --- the functions -----------------------------------------------------------------


def async_stream(
    supervisor: Address,
    items: Iterable[T] | AsyncIterable[T],
    fn: Callable[[T], Awaitable[R]],
    **options: Unpack[StreamOptions],
) -> TaskStream[T, R]:
    """Run ``fn(item)`` for each item, each in a task linked to the consumer.

    A task that ends abnormally ends the process that consumes the stream, with
    the task's reason.  One that traps exits gets ``ItemExited`` instead; a
    consumer that is no process gets ``TaskExitError``.

    Args:
        supervisor: a TaskSupervisor's pid or name.
        items: the input, finite or not.  A generator is closed when the block
            is left.
        fn: async function of one item.
        options: see :class:`StreamOptions`.

    Returns:
        To be entered with ``async with``; see :class:`TaskResults` for what its
        results raise.

    Raises:
        TypeError: ``fn`` is no async function, or an option is of another type.
        ValueError: ``max_concurrency`` is less than 1, or a time is negative.

    Cancellation: stops the tasks, and waits for their end.
    """
    check_async("async_stream()", fn)
    return TaskStream(items, fn, Options(supervisor=supervisor, linked=True, **options))


def async_stream_nolink(
    supervisor: Address,
    items: Iterable[T] | AsyncIterable[T],
    fn: Callable[[T], Awaitable[R]],
    **options: Unpack[StreamOptions],
) -> TaskStream[T, R]:
    """Run ``fn(item)`` for each item; a failure is a result as any other.

    Args:
        supervisor: as for :func:`async_stream`.
        items: the same.
        fn: the same.
        options: the same.

    Returns:
        To be entered with ``async with``.

    Raises:
        TypeError: ``fn`` is no async function, or an option is of another type.
        ValueError: ``max_concurrency`` is less than 1, or a time is negative.

    Cancellation: stops the tasks, and waits for their end.
    """
    check_async("async_stream_nolink()", fn)
    return TaskStream(
        items, fn, Options(supervisor=supervisor, linked=False, **options)
    )
