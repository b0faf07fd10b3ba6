"""The table of telemetry events says what the code emits, all of it and no more."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/otp/telemetry.md"

Keys: TypeAlias = frozenset[str]
Emitted: TypeAlias = tuple[str, Keys, Keys]

_ROW = re.compile(r"^\| `(atomr[\w.]+)` \|(.*?)\|(.*?)\|", re.MULTILINE)
# What Supervising.emit adds to each event about a child.
ABOUT_A_CHILD = frozenset({"supervisor", "child"})


def documented() -> set[Emitted]:
    def names(cell: str) -> Keys:
        return frozenset(re.findall(r"`(\w+)`", cell))

    text = PAGE.read_text(encoding="utf-8")
    return {(event, names(m), names(d)) for event, m, d in _ROW.findall(text)}


def emitted(source: str) -> Iterator[Emitted]:
    """Yield each event that a module emits, with the keys of its two mappings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr != "emit" or not node.args:
            continue
        if ast.unparse(node.func.value) == "telemetry":
            yield from _direct(node, _names(tree))
        else:
            names = {k.arg for k in node.keywords if k.arg is not None}
            event = f"atomr.supervisor.{ast.literal_eval(node.args[0])}"
            yield event, frozenset(), ABOUT_A_CHILD | names


def _names(tree: ast.Module) -> dict[str, ast.Tuple]:
    """Return the tuples that are given a name before they are emitted."""
    return {
        ast.unparse(node.targets[0]): node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
    }


def _direct(node: ast.Call, names: dict[str, ast.Tuple]) -> Iterator[Emitted]:
    keywords = {k.arg: k.value for k in node.keywords}
    mappings = [
        _keys(node.args[i] if len(node.args) > i else keywords.get(name))
        for i, name in ((1, "measurements"), (2, "metadata"))
    ]
    event = names.get(ast.unparse(node.args[0]), node.args[0])
    assert isinstance(event, ast.Tuple), "an event is a tuple in the module's source"
    *path, last = event.elts
    if isinstance(last, ast.Name):
        return  # Supervising.emit: its callers say the name
    choices = [last.body, last.orelse] if isinstance(last, ast.IfExp) else [last]
    for choice in choices:
        name = ".".join(ast.literal_eval(part) for part in (*path, choice))
        yield name, mappings[0], mappings[1]


def _keys(mapping: ast.expr | None) -> Keys:
    if not isinstance(mapping, ast.Dict):
        return frozenset()
    return frozenset(ast.literal_eval(key) for key in mapping.keys if key is not None)


def test_the_table_of_events_is_what_the_code_emits() -> None:
    sources = sorted(ROOT.glob("atomr/**/*.py"))
    code = {event for path in sources for event in emitted(path.read_text())}

    assert documented() == code


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "telemetry.emit(('a', 'b'), {'n': 1}, {'pid': p})",
            [("a.b", frozenset({"n"}), frozenset({"pid"}))],
        ),
        (
            "telemetry.emit(('a', 'x' if c else 'y'), metadata={'pid': p})",
            [(f"a.{name}", frozenset(), frozenset({"pid"})) for name in "xy"],
        ),
        (
            "self.emit('restart', child, reason=r)",
            [
                (
                    "atomr.supervisor.restart",
                    frozenset(),
                    frozenset({"supervisor", "child", "reason"}),
                )
            ],
        ),
        (
            "event = ('a', 'b')\ntelemetry.emit(event, metadata={'pid': p})",
            [("a.b", frozenset(), frozenset({"pid"}))],
        ),
        ("telemetry.emit(('atomr', 'supervisor', event), metadata=x)", []),
        ("self.send('restart')", []),
    ],
)
def test_what_is_emitted_is_read_from_the_source(
    source: str, expected: list[Emitted]
) -> None:
    assert list(emitted(source)) == expected
