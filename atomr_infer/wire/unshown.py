"""What an answer holds that its client's dialect has no place for.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.dialect import Dialect

if TYPE_CHECKING:
    from atomr_infer.model.batch import TokenChunk

NAMES = {"annotations": "citations", "images": "pictures", "audio": "sound"}
"""What a chat's message may hold beside words, and what people call it."""

SHOWN: dict[Dialect, frozenset[str]] = {
    Dialect.OPENAI_CHAT: frozenset(NAMES),
    Dialect.OPENAI_COMPLETIONS: frozenset(),
    Dialect.OPENAI_RESPONSES: frozenset({"annotations"}),
    Dialect.ANTHROPIC: frozenset(),
    Dialect.GEMINI: frozenset({"annotations", "images"}),
}
"""Which of them the answer of each dialect can hold."""

_NOTHING = (b"null", b"[]", b"{}", b'""')


def unshown(chunk: TokenChunk, dialect: Dialect) -> tuple[str, ...]:
    """Return in words what of a chunk its client does not get.

    >>> from atomr_infer.model.batch import TokenChunk
    >>> unshown(TokenChunk(extra={"annotations": b"[1]"}), Dialect.ANTHROPIC)
    ('citations',)
    >>> unshown(TokenChunk(extra={"annotations": b"[]"}), Dialect.ANTHROPIC)
    ()
    """
    shown = SHOWN[dialect]
    return tuple(
        NAMES[name]
        for name, raw in chunk.extra.items()
        if name in NAMES and name not in shown and raw not in _NOTHING
    )


def in_words(missed: tuple[str, ...]) -> str:
    """Return the warning."""
    return "left out of the answer: " + ", ".join(missed)
