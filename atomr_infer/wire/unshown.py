"""What an answer holds that its client's dialect has no place for.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.dialect import Dialect

if TYPE_CHECKING:
    from atomr_infer.model.batch import TokenChunk

NAMES = {
    "annotations": "citations",
    "images": "pictures",
    "audio": "sound",
    "media": "other media",
}
"""What an answer may hold beside words, and what people call it."""

SHOWN: dict[Dialect, frozenset[str]] = {
    Dialect.OPENAI_CHAT: frozenset({"annotations", "images", "audio"}),
    Dialect.OPENAI_COMPLETIONS: frozenset(),
    Dialect.OPENAI_RESPONSES: frozenset({"annotations"}),
    Dialect.ANTHROPIC: frozenset(),
    Dialect.GEMINI: frozenset({"annotations", "images", "media"}),
}
"""Which of them the answer of each dialect can hold."""

# OpenAI's sound does not say what it is, as a part of Gemini's must.
_SAYS_ITS_KIND = b'"mime_type"'

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
        if name in NAMES and raw not in _NOTHING
        if not (name in shown or _is_geminis_own(name, raw, dialect))
    )


def _is_geminis_own(name: str, raw: bytes, dialect: Dialect) -> bool:
    is_sound = name == "audio" and dialect is Dialect.GEMINI
    return is_sound and _SAYS_ITS_KIND in raw


def in_words(missed: tuple[str, ...]) -> str:
    """Return the warning."""
    return "left out of the answer: " + ", ".join(missed)
