"""What leaves a process' code: which part is its reason, which part goes on.

Also for code that is no process but must end like one, as ``terminate`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr.core.exits import SHUTDOWN, unwrap

if TYPE_CHECKING:
    from atomr.core.exits import ExitReason

PASS_UP = (
    trio.Cancelled,
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
    trio.TrioInternalError,
)
"""What a process never keeps: its reason is recorded, and it goes on upward."""


def reason_of(error: BaseException) -> ExitReason:
    """Return the exit reason for what left a process' code.

    ``Cancelled`` alone is ``SHUTDOWN``: somebody cancelled around the process.
    Together with an error, the error is the reason.
    """
    if isinstance(error, trio.Cancelled):
        return SHUTDOWN
    if isinstance(error, BaseExceptionGroup):
        cancelled, errors = error.split(trio.Cancelled)
        if errors is None:
            return SHUTDOWN
        # A split makes new groups; without a Cancelled the group is its own reason.
        return unwrap(error if cancelled is None else errors)
    return error


def passes_up(error: BaseException) -> BaseException | None:
    """Return the part of ``error`` that must not stop at a process' frame.

    Cancellations alone are one: each frame would put the groups of those below it
    into one more, and trio cannot show one that is some hundreds deep.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error if isinstance(error, PASS_UP) else None
    found = error.split(PASS_UP)[0]
    if found is None or found.split(trio.Cancelled)[1] is not None:
        return found
    leaf: BaseException = found
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return leaf
