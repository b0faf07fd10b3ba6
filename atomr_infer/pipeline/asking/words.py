"""What was asked, and what was said, as text.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.batch import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk

_SHOWN_CHARS = 120


def asked_of(batch: ExecuteBatch) -> str:
    """Return the last words of the user."""
    spoken = (m.text for m in reversed(batch.messages) if m.role is Role.USER)
    return next(spoken, "")


def text_of(chunks: Iterable[TokenChunk]) -> str:
    """Return the text of the first choice."""
    return "".join(chunk.text for chunk in chunks if chunk.index == 0)


def one_line(text: str) -> str:
    r"""Return text as a line of a log can have it: short, control characters escaped.

    Whoever wrote it could make lines of its own otherwise.

    >>> one_line("no\nrequest r-1")
    'no\\nrequest r-1'
    """
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text[:_SHOWN_CHARS]
    )
    return shown if len(text) <= _SHOWN_CHARS else f"{shown}..."
