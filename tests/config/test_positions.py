"""Every key that tomllib sees has its line, however the document is written."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.config.positions import scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.config.positions import Path

TRAPS = '''\
# [comment] = 1
title = "x # not a comment"   # comment with key = 2

[[deployment]]   # [[deployment]]
name = 'a'
prompt = """
[fake]
name = "not here"
quotes \\""" and "" more"""""
raw = \'\'\'
[[deployment]]
inner = 1\'\'\'\'
list = [  # comment ] here
  1, "]", # , ]
  { deep = [ 2,
             3 ] },
]
[deployment.options]
"quoted # key" = 1
'dotted.key' . plain = { x = 1, y.z = "}" }
when = 1979-05-27 07:32:00
"" = 4

[[deployment]]
name = "b"
serving.replicas = 2
serving . "max\\u0020queue" = 3
[deployment.serving.deep]
x = 1
[[deployment.list]]
[[deployment.list]]
x = 2
[deployment.list.sub]
y = 3

[a.b.c]
x = 1
[a]
y = 2
'''


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("title",), 'title = "x # not'),
        (("deployment",), "[[deployment]]   #"),
        (("deployment", 0), "[[deployment]]   #"),
        (("deployment", 0, "name"), "name = 'a'"),
        (("deployment", 0, "prompt"), 'prompt = """'),
        (("deployment", 0, "raw"), "raw = '''"),
        (("deployment", 0, "list", 1), '1, "]", #'),
        (("deployment", 0, "list", 2), "{ deep = [ 2,"),
        (("deployment", 0, "list", 2, "deep", 0), "{ deep = [ 2,"),
        (("deployment", 0, "list", 2, "deep", 1), "3 ] },"),
        (("deployment", 0, "options"), "[deployment.options]"),
        (("deployment", 0, "options", "quoted # key"), '"quoted # key" = 1'),
        (("deployment", 0, "options", "dotted.key", "plain", "y", "z"), "'dotted.key'"),
        (("deployment", 0, "options", "when"), "when = 1979"),
        (("deployment", 0, "options", ""), '"" = 4'),
        (("deployment", 1, "name"), 'name = "b"'),
        (("deployment", 1, "serving"), "serving.replicas = 2"),
        (("deployment", 1, "serving", "max queue"), 'serving . "max'),
        (("deployment", 1, "serving", "deep", "x"), "x = 1"),
        (("deployment", 1, "list", 0), "[[deployment.list]]"),
        (("deployment", 1, "list", 1, "x"), "x = 2"),
        (("deployment", 1, "list", 1, "sub", "y"), "y = 3"),
        (("a", "b"), "[a.b.c]"),
        (("a",), "[a]"),
        (("a", "y"), "y = 2"),
        # What is absent is looked for at the table that should hold it.
        (("a", "b", "missing"), "[a.b.c]"),
    ],
)
def test_traps_do_not_fool_the_scanner(path: Path, text: str) -> None:
    assert tomllib.loads(TRAPS)

    line = scan(TRAPS).line(path)

    assert line is not None
    assert TRAPS.splitlines()[line - 1].strip().startswith(text)


def test_a_path_that_is_nowhere_has_no_line() -> None:
    assert scan(TRAPS).line(("nowhere", "at", "all")) is None
    assert scan("").line(("x",)) is None


def test_windows_line_ends_count_once() -> None:
    text = 'a = 1\r\nb = """\r\n\r\n"""\r\n[t]\r\nc = 2\r\n'

    assert scan(text).line(("t", "c")) == 6


KEYS = st.sampled_from(["a", "b", "c", '"d e"', "'f.g'", '"#"', '"]"', "h-1"])
DOTTED = st.lists(KEYS, min_size=1, max_size=3).map(" . ".join)
STRINGS = st.sampled_from(
    [
        '"plain"',
        "'literal [x]'",
        '"esc \\" = 1"',
        '"""\n[a]\nb = 1\n"""',
        '"""ends in quotes"""""',
        '"""\\"""\n"""',
        "'''\n[[a]]\nc = 2'''''",
        '""',
        "''",
        '""""""',
        "''''''",
    ]
)
# Each leaf that matters is a number of its own, so that a line can be told.
NUMBER = "<number>"
VALUES = st.recursive(
    st.just(NUMBER) | STRINGS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[ {', '.join(items)} ]")
        | st.lists(inner, min_size=1, max_size=3).map(
            lambda items: "[ # ], [\n  " + ",\n# x = 1\n  ".join(items) + ",\n]"
        )
        | st.lists(st.tuples(DOTTED, inner.filter(lambda v: "\n" not in v)), max_size=3)
        .map(lambda pairs: ", ".join(f"{key} = {value}" for key, value in pairs))
        .map(lambda inside: f"{{ {inside} }}")
    ),
    max_leaves=6,
)
STATEMENTS = (
    st.tuples(DOTTED, VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}")
    | DOTTED.map(lambda key: f"[{key}]")
    | DOTTED.map(lambda key: f"[[ {key} ]] # [[x]]")
    | st.sampled_from(["", "# a = 1", "  # [a]"])
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Draw statements, and keep each that leaves the document valid."""
    text = ""
    number = 1000
    for statement in draw(st.lists(STATEMENTS, max_size=12)):
        while NUMBER in statement:
            statement = statement.replace(NUMBER, str(number), 1)  # noqa: PLW2901
            number += 1
        try:
            tomllib.loads(f"{text}{statement}\n")
        except tomllib.TOMLDecodeError:
            continue
        text += f"{statement}\n"
    return text


def walk(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from walk(inner, (*path, index))


@given(documents())
def test_every_key_that_tomllib_sees_is_on_its_line(text: str) -> None:
    lines = text.split("\n")
    positions = scan(text)

    for path, value in walk(tomllib.loads(text)):
        line = positions.line(path)
        assert line is not None
        if isinstance(path[-1], str):
            assert path[-1] in lines[line - 1]
        if isinstance(value, int):
            assert str(value) in lines[line - 1]


@given(documents())
def test_the_scanner_sees_no_key_that_is_not_there(text: str) -> None:
    # "there" is what tomllib sees; a line of its own would be a made-up key.
    seen = {path for path, _ in walk(tomllib.loads(text))}

    assert set(scan(text)._lines) == seen
