"""On which line of a TOML document each table and key stands.

``tomllib`` gives values without positions, and an operator needs the line.
This module walks the same text a second time and keeps nothing but lines.  It
runs only on text that ``tomllib`` has accepted, so it needs no error handling:
it skips values by their first character and never judges them.

A place is named by its path in the parsed document: ``("deployment", 0,
"serving", "replicas")`` is the key ``replicas`` in the table ``serving`` of
the first element of the array ``deployment``.

Pure.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

import attrs

Path = tuple[str | int, ...]
"""Where a value is in the parsed document: table keys and array indices."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# The longer quotes come first.  A string may end in quotes of its own: the
# last three of up to five close it, hence the greedy tail.
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


@attrs.frozen
class Positions:
    r"""Lines of a document, counted from 1.

    >>> positions = scan('name = "x"\n[[deployment]]\nmodel = "y"\n')
    >>> positions.line(("deployment", 0, "model"))
    3
    >>> positions.line(("deployment", 0, "absent"))
    2
    """

    _lines: Mapping[Path, int]

    def line(self, path: Path) -> int | None:
        """Return the line of ``path``, or of the nearest table around it.

        None when neither it nor any table around it is written in the document.
        """
        for length in range(len(path), 0, -1):
            found = self._lines.get(path[:length])
            if found is not None:
                return found
        return None


def scan(text: str) -> Positions:
    """Return the positions in ``text``, which ``tomllib`` must have accepted."""
    return Positions(_Scanner(text).scan())


class _Scanner:
    """One walk over a document; each method leaves ``_at`` behind what it read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}
        self._counted_to = 0
        self._line = 1

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._key_and_value(table)
            self._skip(_BLANK)
        return self._lines

    def _header(self) -> Path:
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        line = self._line_here()
        *around, name = self._key()
        self._at += 2 if is_array else 1
        table: Path = ()
        for part in around:
            table = self._last_element((*table, part))
            self._lines.setdefault(table, line)
        table = (*table, name)
        if is_array:
            self._lines.setdefault(table, line)
            self._lengths[table] = self._lengths.get(table, 0) + 1
            table = self._last_element(table)
        # A table that was only implied before gets the line of its own header.
        self._lines[table] = line
        return table

    def _last_element(self, table: Path) -> Path:
        length = self._lengths.get(table)
        return table if length is None else (*table, length - 1)

    def _key_and_value(self, table: Path) -> None:
        line = self._line_here()
        for part in self._key():
            table = (*table, part)
            self._lines.setdefault(table, line)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(table)

    def _key(self) -> list[str]:
        parts = [self._key_part()]
        while self._text.startswith(".", self._at):
            self._at += 1
            parts.append(self._key_part())
        return parts

    def _key_part(self) -> str:
        self._skip(_SPACE)
        quoted = self._text[self._at] in "\"'"
        written = self._skip(_STRING if quoted else _BARE_KEY)
        self._skip(_SPACE)
        # tomllib knows the escapes; there is no reason to know them here too.
        return str(tomllib.loads(f"x = {written}")["x"]) if quoted else written

    def _value(self, path: Path) -> None:
        first = self._text[self._at]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(_STRING if first in "\"'" else _SCALAR)

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        self._skip(_BLANK)
        while not self._text.startswith("]", self._at):
            element = (*path, index)
            self._lines[element] = self._line_here()
            self._value(element)
            self._skip_comma(_BLANK)
            index += 1
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        self._skip(_SPACE)
        while not self._text.startswith("}", self._at):
            self._key_and_value(path)
            self._skip_comma(_SPACE)
        self._at += 1

    def _skip_comma(self, space: re.Pattern[str]) -> None:
        self._skip(space)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip(space)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None, "tomllib accepts only what these patterns match"
        self._at = match.end()
        return match[0]

    def _line_here(self) -> int:
        # Counted from the last place that was asked for: the walk stays linear.
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line
