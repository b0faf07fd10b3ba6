"""What the probe's and the function forms of expectations share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from atomr.errors import short
from atomr.process.calls import Cast, From
from atomr.testing.matching import ANYTHING, describe

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_TIMEOUT_S: Final = 1.0
"""Long for a message that comes, short for a test that fails."""

_SHOWN: Final = 10


class ExpectationError(AssertionError):
    """A message that a test expected did not come, or one that it did not did."""


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
