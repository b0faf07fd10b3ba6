"""Tokens to text, a token at a time.

A token is no character: a letter outside ASCII may be several tokens, and a word
is written differently behind another one.  So a piece of text is told when it
cannot change any more, and a stop string is looked for in text, not in tokens.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

Decode = Callable[[list[int]], str]
"""Returns the text of some tokens, special ones left out."""

_BROKEN = "\ufffd"
"""How a decoder shows bytes that are no character, or are not one yet."""

_MOST_HELD = 3
"""A character has four bytes at most, so three of it may be here without it."""

_MOST_OPEN = 256
"""Tokens after which bytes that are no text at all are told as they are: each
token decodes all of them again."""


class Detokenizer:
    """Tells the text of a growing row of tokens in pieces.

    What is decoded again for each token is the last piece and what came since:
    the piece is context, for decoders that drop a space at a text's start.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._open: list[int] = []
        self._told = 0

    def push(self, token: int) -> str:
        """Take a token; return the text that is complete by it."""
        self._open.append(token)
        new = self._new()
        if new.endswith(_BROKEN) and len(self._open) < _MOST_OPEN:
            whole = new[: len(new) - _broken_at_end(new)]
            text = whole[self._told :]
            self._told += len(text)
            return text
        text = new[self._told :]
        if new:
            self._context, self._open = self._open, []
            self._told = 0
        return text

    def flush(self) -> str:
        """Return what is left: a character that was never completed, as U+FFFD."""
        return self._new()[self._told :] if self._open else ""

    def _new(self) -> str:
        known = self._decode(self._context)
        return self._decode(self._context + self._open)[len(known) :]


def _broken_at_end(text: str) -> int:
    """How many characters at the end may still become others."""
    broken = len(text) - len(text.rstrip(_BROKEN))
    return min(broken, _MOST_HELD)


@attrs.frozen
class Told:
    """What may be shown after another piece of text.

    Attributes:
        text: the text; "" when all of it may still be part of a stop string.
        stop: the stop string that ended the answer; None: none did.
    """

    text: str
    stop: str | None = None


class StopFinder:
    """Holds text back while it may be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def push(self, text: str) -> Told:
        """Take new text; return what may be shown."""
        text = self._held + text
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            # The one that begins first; of two at one place, the longer.
            at, stop = min(found, key=lambda one: (one[0], -len(one[1])))
            self._held = ""
            return Told(text[:at], stop)
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return Told(text[: len(text) - keep])

    def flush(self) -> str:
        """Return what was held back: the answer is over."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` begin ``stop``.

    >>> overlap("one en", "end")
    2
    """
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
