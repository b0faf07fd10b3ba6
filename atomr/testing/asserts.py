"""Expectations of a test that is a process itself.

Such a test runs in ``spawn``, or in the block of ``TestNode.as_process``, and
reads its own mailbox.  Any other test has a :class:`~atomr.testing.Probe`.

Source: ExUnit's functions of the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, overload

import trio

from atomr.errors import ReceiveTimeoutError
from atomr.process import receive
from atomr.process.context import current_process
from atomr.testing.clocks import advance, settle, standing_clock
from atomr.testing.expecting import (
    DEFAULT_TIMEOUT_S,
    ExpectationError,
    listed,
    refute,
    wanted,
)
from atomr.testing.matching import Pattern, accepts

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@overload
async def assert_receive(
    pattern: Pattern[T], *, timeout_s: float = DEFAULT_TIMEOUT_S
) -> T: ...
@overload
async def assert_receive(
    pattern: type[T], *, timeout_s: float = DEFAULT_TIMEOUT_S
) -> T: ...
@overload
async def assert_receive(
    pattern: Callable[[Any], TypeGuard[T]], *, timeout_s: float = DEFAULT_TIMEOUT_S
) -> T: ...
@overload
async def assert_receive(
    pattern: object, *, timeout_s: float = DEFAULT_TIMEOUT_S
) -> object: ...
async def assert_receive(
    pattern: object, *, timeout_s: float = DEFAULT_TIMEOUT_S
) -> object:
    """Take the oldest message that the pattern accepts; others stay.

    Args:
        pattern: see :mod:`atomr.testing.matching`.
        timeout_s: bound in seconds.  Under a clock that only the test moves it
            fails as soon as all tasks are blocked.

    Raises:
        ExpectationError: none came in time; shows what waits.
        NotAProcessError: the running task is not a process' own task.

    Cancellation: takes no message.
    """
    __tracebackhide__ = True
    bound_s = timeout_s
    if standing_clock() is not None:
        await settle()
        bound_s = 0.0
    try:
        return await receive(lambda m: accepts(pattern, m), timeout_s=bound_s)
    except ReceiveTimeoutError:
        pass
    raise _missed(pattern, f"within {timeout_s} s")


@overload
async def assert_received(pattern: Pattern[T]) -> T: ...
@overload
async def assert_received(pattern: type[T]) -> T: ...
@overload
async def assert_received(pattern: Callable[[Any], TypeGuard[T]]) -> T: ...
@overload
async def assert_received(pattern: object) -> object: ...
async def assert_received(pattern: object) -> object:
    """Take the oldest message that the pattern accepts and that is there already.

    Raises:
        ExpectationError: there is none; shows what waits.
        NotAProcessError: the running task is not a process' own task.
    """
    __tracebackhide__ = True
    try:
        return await receive(lambda m: accepts(pattern, m), timeout_s=0.0)
    except ReceiveTimeoutError:
        pass
    raise _missed(pattern, "to be there")


async def refute_receive(pattern: object, *, for_s: float = 0.0) -> None:
    """Check that no such message is there, or comes.

    Args:
        pattern: see :mod:`atomr.testing.matching`; also looked for inside of
            calls and casts.
        for_s: how long, in seconds; 0: until all tasks are blocked.  A clock
            that only the test moves is moved by so much.

    Raises:
        ExpectationError: one came; it stays.
        NotAProcessError: the running task belongs to no process.
    """
    __tracebackhide__ = True
    _refute(pattern)
    if standing_clock() is not None:
        await advance(for_s)
    elif for_s > 0:
        await trio.sleep(for_s)
    else:
        await settle()
    _refute(pattern)


def refute_received(pattern: object) -> None:
    """Check that no such message is there, by itself or in a call or a cast.

    Raises:
        ExpectationError: one is; it stays.
        NotAProcessError: the running task belongs to no process.
    """
    __tracebackhide__ = True
    _refute(pattern)


def _refute(pattern: object) -> None:
    __tracebackhide__ = True
    refute(current_process("refute_receive()").pid, pattern, _waiting())


def _missed(pattern: object, when: str) -> ExpectationError:
    who = current_process("assert_receive()").pid
    return ExpectationError(
        f"{who!r} expected {wanted(pattern)} {when}{listed('waiting', _waiting())}"
    )


def _waiting() -> list[object]:
    process = current_process("assert_receive()")
    return [*reversed(process.batch), *process.inbox]
