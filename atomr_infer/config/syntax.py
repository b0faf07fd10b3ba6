r"""What is wrong with a text that is not TOML, in words for who wrote it.

``tomllib`` says what its grammar expected, such as ``Invalid value``, and where it gave
up.  Here that becomes a sentence with the key or the header that is meant, and the
remedy.  What it says of nothing known here is passed on.

Of a value it repeats nothing but words and marks that are known here: who writes a
credential into the file mostly forgets its quotes as well, no list of names of keys has
all that hold one, and what is said here goes into logs.  A key or a header is named
where it can be nothing else.

Pure.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_AT_END = " (at end of document)"

_KEY = re.compile(r"""\s*((?:[\w.-]|"[^"]*"|'[^']*')+)\s*=""")
_HEADER = re.compile(r"\s*(\[\[?[^\]#]*\]{0,2})")
_BARE = re.compile(r"[\w.-]+", re.ASCII)
_BARE_HEADER = re.compile(r"\[{1,2}\s*([\w.-]*)\s*\]{0,2}", re.ASCII)
_DUPLICATE = "Duplicate inline table key "
_MARKS = "={}],:;"
"""What nobody's password is, alone."""
_TYPOGRAPHIC = ("Pi", "Pf", "Ps")
"""What Unicode says of quotes that open or close a citation, high or low."""
_SHORT = 12
"""Characters; a credential is longer, and has a digit, or is longer still."""

_MOST_OPENERS = 200
"""How many lines are tried for the one that opened what is not closed."""

_QUOTES = 'text stands in quotes, as in name = "text"'
_WORDS = {
    **dict.fromkeys(("yes", "on", "true"), "write true"),
    **dict.fromkeys(("no", "off", "false"), "write false"),
    **dict.fromkeys(("none", "null", "nil"), "leave out the key that has no value"),
}


@attrs.frozen
class _Spot:
    """Where ``tomllib`` gave up.

    Attributes:
        text: the document.
        number: of the line, from 1.
        column: from 0.
        problem: in the parser's words.
    """

    text: str
    number: int
    column: int
    problem: str

    @property
    def line(self) -> str:
        lines = self.text.split("\n")
        return lines[self.number - 1] if self.number <= len(lines) else ""

    @property
    def key(self) -> str | None:
        """The key whose value is on the line; None: it is another kind of line."""
        found = _KEY.match(self.line)
        return found[1] if found and found.end() <= self.column else None

    @property
    def name(self) -> str | None:
        """That key in quotes; None: there is none, or it had better not be repeated."""
        return _named(_KEY.match(self.line)) if self.key else None


def explain(text: str, message: str) -> tuple[int, str]:
    r"""Return the line of a mistake, and what it is and what to do.

    Args:
        text: the document.
        message: what ``tomllib`` says of it.

    >>> explain("watch = yes\n", "Invalid value (at line 1, column 9)")
    (1, "'watch' is followed by 'yes', which is no value; write true")
    """
    # Python 3.11 tells the position in the message only.
    found = _AT_LINE.search(message)
    problem = _AT_LINE.sub("", message).removesuffix(_AT_END)
    if found:
        spot = _Spot(text, int(found[1]), int(found[2]) - 1, problem)
    else:
        written = text.rstrip("\n").split("\n")
        spot = _Spot(text, len(written), len(written[-1]), problem)
    for known, told in _TOLD.items():
        if problem.startswith(known):
            return told(spot)
    return spot.number, problem


def _value(spot: _Spot) -> tuple[int, str]:
    if spot.key is None:
        return _unclosed(spot)
    name = spot.name or "a key"
    rest = spot.line[spot.column :].split("#")[0].strip()
    if not rest:
        return spot.number, f"{name} has no value behind its '='; {_QUOTES}"
    remedy = _WORDS.get(rest.lower(), _QUOTES)
    if rest.lower() in _WORDS:
        what = f"'{rest}', which"
    elif rest[0] in _MARKS:
        what = f"'{rest[0]}', which"
    else:
        what = "what"
    if unicodedata.category(rest[0]) in _TYPOGRAPHIC:
        what = f"{rest[0]}, which"
        remedy = "write straight quotes, \" or '"
    return spot.number, f"{name} is followed by {what} is no value; {remedy}"


def _behind(spot: _Spot) -> tuple[int, str]:
    where = "a value" if spot.name is None else f"the value of {spot.name}"
    if spot.key is None and spot.line.lstrip().startswith("["):
        where = "a header"
    return spot.number, (
        f"{where} is followed by more; {_QUOTES}, and each key has a line of its own"
    )


def _equals(spot: _Spot) -> tuple[int, str]:
    # Only as it is in YAML: a line without '=' may be the rest of anything.
    is_pair = re.match(r":(\s|$)", spot.line[spot.column :])
    key = _plain(spot.line[: spot.column].strip()) if is_pair else None
    return spot.number, f"{key or 'a key'} is not followed by '='; write name = value"


def _header(spot: _Spot) -> tuple[int, str]:
    found = _HEADER.match(spot.line)
    header = found[1].strip() if found else "[["
    form = "[[name]]" if header.startswith("[[") else "[name]"
    told = "this" if _named_header(header) is None else f"'{header}'"
    return spot.number, f"{told} is no header of a table; write {form}"


def _name(spot: _Spot) -> tuple[int, str]:
    if spot.line.lstrip().startswith("["):
        return _header(spot)
    return spot.number, (
        "a key is missing; { name = value, ... } is on one line, and ends without a "
        "comma"
    )


def _statement(spot: _Spot) -> tuple[int, str]:
    mark = spot.line.lstrip()[:1]
    told = f"'{mark}'" if mark and mark in _MARKS else "this"
    return spot.number, (
        f"a line cannot begin with {told}; write name = value, a [table], or a "
        "# comment"
    )


def _text(spot: _Spot) -> tuple[int, str]:
    name = "a text" if spot.name is None else f"the text of {spot.name}"
    return spot.number, f"{name} is not closed; end it with the quote that opens it"


def _open_text(spot: _Spot) -> tuple[int, str]:
    number = _opener(spot, ('"', "'"))
    return _text(attrs.evolve(spot, number=number, column=len(spot.text)))


def _unclosed(spot: _Spot) -> tuple[int, str]:
    number = _opener(spot, ("[", "{"))
    opened = attrs.evolve(spot, number=number, column=len(spot.text))
    name = "a list" if opened.name is None else f"the list of {opened.name}"
    before = "" if number == spot.number else f" before line {spot.number}"
    return number, (
        f"{name} has a value without quotes, lacks a comma between two, or is not "
        f"closed with ']'{before}"
    )


def _twice(spot: _Spot) -> tuple[int, str]:
    header = _HEADER.match(spot.line)
    if header is None:
        key = _KEY.match(spot.line)
        return spot.number, (
            f"{_named(key) or 'a key'} has a value already{_before(spot, key)}; "
            "each key stands once in its table"
        )
    name = _named_header(header[1])
    told = "a header" if name is None else header[1]
    return spot.number, (
        f"{told} is there already{_before(spot, header)}; write it once, or "
        f"[[{name or 'name'}]] for each of several"
    )


def _twice_inline(spot: _Spot) -> tuple[int, str]:
    name = _plain(spot.problem.removeprefix(_DUPLICATE).strip("'\"")) or "a key"
    return spot.number, f"{name} is twice in one {{ ... }}; write it once"


def _before(spot: _Spot, meant: re.Match[str] | None) -> str:
    """Where the same is written before, in the same table where it is a key."""
    lines = spot.text.split("\n")[: spot.number - 1]
    is_key = meant is not None and not meant[1].startswith("[")
    for number in range(len(lines), 0, -1):
        header = _HEADER.match(lines[number - 1])
        found = _KEY.match(lines[number - 1]) if is_key else header
        if meant and found and found[1].strip("[] ") == meant[1].strip("[] "):
            return f", on line {number}"
        if is_key and header:
            break
    return ""


def _backslash(spot: _Spot) -> tuple[int, str]:
    return spot.number, (
        "a backslash in \"text\" begins an escape; write '...' around what has "
        "backslashes, or two for each"
    )


def _character(spot: _Spot) -> tuple[int, str]:
    if r"'\n'" in spot.problem:
        return _text(spot)
    return spot.number, f"{spot.problem.lower()}, which is not seen; take it out"


_TOLD: dict[str, Callable[[_Spot], tuple[int, str]]] = {
    "Invalid value": _value,
    "Expected newline or end of document": _behind,
    "Expected '=' after a key": _equals,
    "Expected ']": _header,
    "Invalid initial character": _name,
    "Invalid statement": _statement,
    "Unterminated string": _open_text,
    "Expected \"'": _open_text,
    "Unclosed array": _unclosed,
    "Cannot overwrite": _twice,
    "Cannot declare": _twice,
    _DUPLICATE: _twice_inline,
    "Unescaped": _backslash,
    "Illegal character": _character,
    "Found invalid character": _character,
}


def _opener(spot: _Spot, marks: tuple[str, ...]) -> int:
    """Find the line that opened what is not closed: all before it is TOML."""
    lines = spot.text.split("\n")[: spot.number]
    with_marks = (
        number
        for number in range(len(lines), 0, -1)
        if any(mark in lines[number - 1] for mark in marks)
    )
    for number, _ in zip(with_marks, range(_MOST_OPENERS), strict=False):
        try:
            tomllib.loads("\n".join(lines[: number - 1]))
        except ValueError:
            continue
        return number
    return spot.number


def _named(found: re.Match[str] | None) -> str | None:
    """A key in quotes; None where it may be something else."""
    # base64 ends so, and a line of it is read as a key.
    if found is None or found.string[found.end() :].startswith("="):
        return None
    return _plain(found[1])


def _named_header(header: str) -> str | None:
    """The name that is in a header, "" where there is none; None: it is not plain."""
    found = _BARE_HEADER.fullmatch(header.strip())
    if found is None or (found[1] and _plain(found[1]) is None):
        return None
    return found[1]


def _plain(name: str) -> str | None:
    """A name in quotes; None where it is more than a name, or may be a credential."""
    has_digit = any(map(str.isdigit, name))
    if len(name) > _SHORT * 3 or (len(name) > _SHORT and has_digit):
        return None
    return f"'{name}'" if _BARE.fullmatch(name) else None
