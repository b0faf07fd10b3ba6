"""Calling code of the user's, whichever kind of function it is.

An async function runs in the event loop, which is trio's; any other runs in the
runner's thread (``thread``), and so does each step of a generator.  What it raises
becomes an error of ours, which names the code and carries its words.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import aclosing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

import trio

from atomr_infer.errors import (
    OUT_OF_MEMORY,
    ConfigError,
    EngineError,
    InferenceError,
    InternalError,
    UnsupportedFeatureError,
)

if TYPE_CHECKING:
    from atomr_infer_python.thread import PinnedThread

_END = object()

Function = Callable[..., object]


@contextmanager
def as_ours(who: str) -> Iterator[None]:
    """Turn what the user's code raises into an error of inference.

    What is none of its errors, as a cancellation is, goes on as it is.

    Raises:
        InferenceError: always, when the block raises an exception.
    """
    try:
        yield
    except (InferenceError, ConfigError):
        raise
    except BaseExceptionGroup as group:
        own, rest = group.split((Exception, SystemExit))
        if rest is not None:
            if own is not None:
                traceback.print_exception(own)
            raise rest from None
        with as_ours(who):
            raise _one_of(group) from None  # it is in no group of ours
    except NotImplementedError as error:
        text = f"{who} does not do that: {_words(error)}"
        raise UnsupportedFeatureError(text) from error
    except MemoryError as error:
        text = f"{who} is out of memory: {_words(error)}"
        raise EngineError(text, code=OUT_OF_MEMORY) from error
    except (Exception, SystemExit) as error:
        # Its traceback belongs into the log, which the process's output is.
        traceback.print_exception(error)
        raise EngineError(f"{who} failed: {_words(error)}") from error


def _one_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what a group, as a nursery raises it, is told as: a bug before others."""
    leaves = [
        _one_of(each) if isinstance(each, BaseExceptionGroup) else each
        for each in group.exceptions
    ]
    bugs = (each for each in leaves if not isinstance(each, InferenceError))
    return next(bugs, leaves[0])


def _words(error: BaseException) -> str:
    name = type(error).__name__
    return " ".join(f"{name}: {error}".split()) if str(error) else name


def runs_in_loop(function: Function) -> bool:
    """Whether a function is async."""
    called = function if inspect.isroutine(function) else type(function).__call__
    found = (function, called)
    return any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
        for one in found
    )


async def result_of(
    function: Function,
    *arguments: object,
    thread: PinnedThread,
    abandons: bool = False,
) -> object:
    """Call a function and return its value, awaited where it is to be.

    Args:
        function: what is called.
        *arguments: with which.
        thread: where it runs, if it is not async.
        abandons: whether a cancellation leaves a call alone that runs there.

    Raises:
        Exception: whatever it raises.
    """
    call = partial(function, *arguments)
    if runs_in_loop(function):
        made = call()
    else:
        made = await thread.run(call, abandons=abandons)
    return await made if isinstance(made, Awaitable) else made


async def pieces_of(
    function: Function, *arguments: object, thread: PinnedThread, who: str
) -> AsyncGenerator[object, None]:
    """Call a function and yield what it yields, or the one text that it returns.

    Raises:
        Exception: whatever it raises.
        InferenceError: what it raises as it is closed, as one of ours.
        InternalError: it returns what cannot be told piece by piece.
    """
    made = await result_of(function, *arguments, thread=thread)
    if isinstance(made, AsyncIterator):
        async with aclosing(_waits(made, who)) as waits:
            async for piece in waits:
                yield piece
    elif isinstance(made, str):
        yield made
    elif isinstance(made, Iterable):
        async with aclosing(_steps(iter(made), thread, who=who)) as steps:
            async for piece in steps:
                yield piece
    else:
        raise InternalError(
            f"{who} returns {type(made).__name__}; an answer is yielded piece by "
            "piece, or returned as one str"
        )


@contextmanager
def _closing(who: str) -> Iterator[None]:
    """Be :func:`as_ours` where a generator is closed.

    A nursery in it puts what closes it, which is no error, into a group.
    """
    with as_ours(who):
        try:
            yield
        except BaseExceptionGroup as group:
            rest = group.split(GeneratorExit)[1]
            if rest is not None:
                raise rest from None


async def _waits(made: AsyncIterator[object], who: str) -> AsyncGenerator[object, None]:
    close = getattr(made, "aclose", None)
    try:
        async for piece in made:
            yield piece
    finally:
        if close is not None:
            with _closing(who):
                await cast("Callable[[], Awaitable[None]]", close)()


async def _steps(
    made: Iterator[object], thread: PinnedThread, *, who: str
) -> AsyncGenerator[object, None]:
    close = getattr(made, "close", None)
    try:
        while (piece := await thread.run(partial(next, made, _END))) is not _END:
            yield piece
    finally:
        if close is not None:
            # It ends a generator where it stands, and frees what it holds.
            with trio.CancelScope(shield=True), as_ours(who):
                await thread.run(cast("Callable[[], None]", close))
