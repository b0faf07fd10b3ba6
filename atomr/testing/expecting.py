"""What the probe's and the function forms of expectations share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from atomr.errors import short
from atomr.process.calls import Cast, From
from atomr.testing.matching import ANYTHING, accepts, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr.refs import Pid

DEFAULT_TIMEOUT_S: Final = 1.0
"""Long for a message that comes, short for a test that fails."""

_SHOWN: Final = 10


class ExpectationError(AssertionError):
    """A message that a test expected did not come, or one that it did not did."""


def content_of(message: object) -> object:
    """Return what a call asks, what a cast says, or the message itself."""
    if isinstance(message, From):
        return message.request
    return message.message if isinstance(message, Cast) else message


def is_or_holds(pattern: object, message: object) -> bool:
    """Return whether the pattern accepts a message, or what is inside of it.

    For what must not come: a pattern that was meant for the content of a cast
    would find nothing for ever.
    """
    content = content_of(message)
    return accepts(pattern, message) or (
        content is not message and accepts(pattern, content)
    )


def shown(message: object) -> str:
    """Return a message as the reader of a failed test knows it."""
    if isinstance(message, From):
        return f"call {short(message.request)}"
    if isinstance(message, Cast):
        return f"cast {short(message.message)}"
    return short(message)


def listed(title: str, messages: Sequence[object], *, nothing: str = "nothing") -> str:
    """Return a line for each message, oldest first."""
    if not messages:
        return f"\n{title}: {nothing}"
    lines = [shown(message) for message in messages[:_SHOWN]]
    if len(messages) > _SHOWN:
        lines.append(f"and {len(messages) - _SHOWN} more")
    return f"\n{title}:" + "".join(f"\n  {line}" for line in lines)


def wanted(pattern: object) -> str:
    """Return the pattern for a sentence."""
    return "a message" if pattern is ANYTHING else describe(pattern)


def refute(who: Pid, pattern: object, messages: Sequence[object]) -> None:
    """Check that no message is or holds one that the pattern accepts.

    Raises:
        ExpectationError: one does.
    """
    __tracebackhide__ = True
    for message in messages:
        if is_or_holds(pattern, message):
            raise ExpectationError(
                f"{who!r} expected no message like this, but got {shown(message)}"
                f"{listed('all that waits', messages)}"
            )
