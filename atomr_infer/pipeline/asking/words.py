"""What was asked, and what was said, as text.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.batch import Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk


def asked_of(batch: ExecuteBatch) -> str:
    """Return the last words of the user."""
    spoken = (m.text for m in reversed(batch.messages) if m.role is Role.USER)
    return next(spoken, "")


def text_of(chunks: Iterable[TokenChunk]) -> str:
    """Return the text of the first choice."""
    return "".join(chunk.text for chunk in chunks if chunk.index == 0)
