r"""Text of others as lines of ours: what a client or an upstream sent forges none.

An event begins at the left edge with its time; what goes on below it is indented.  A
line feed in somebody's text would begin a line of its own, a carriage return or a
terminal's sequence would write over lines that are there, and a line separator of
Unicode's is a line feed to many who read logs.  So characters that move a cursor, or
are not seen, are written as Python writes them; spaces of any kind stay.

Pure.
"""

from __future__ import annotations

import unicodedata

INDENT = "    "
"""What a line begins with that belongs to the one above it."""


def one_line(text: str) -> str:
    r"""Return text as a single line.

    >>> print(one_line("no such model\r\n12:00:00 INFO    forged\x1b[2K"))
    no such model\r\n12:00:00 INFO    forged\x1b[2K
    """
    if text.isprintable():  # nearly all, and it is asked of each line
        return text
    return "".join(map(_shown, text))


def below(text: str) -> str:
    r"""Return text with its own lines kept, all but the first one indented.

    >>> print(below("two mistakes:\nthis\rone\nand that"))
    two mistakes:
        this\rone
        and that
    """
    if "\n" not in text:
        return one_line(text)
    first, *others = map(one_line, text.split("\n"))
    return "\n".join((first, *(f"{INDENT}{each}" for each in others)))


def _shown(character: str) -> str:
    if character.isprintable() or character == "\t":
        return character
    if unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()
