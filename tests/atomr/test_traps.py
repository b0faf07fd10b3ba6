"""Each trap that other libraries fell into has a test that carries its number.

What each trap is, and who fell into it, is in ``docs/explanation``.
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs/explanation/clusters-measured.md"

_TEST = re.compile(r"^(?:async )?def test_trap_(\d\d)_\w+", re.MULTILINE)
_ROW = re.compile(r"^\| (\d+) \| .+ \|$", re.MULTILINE)


def test_each_trap_has_a_test_and_is_on_the_page() -> None:
    named = {
        int(number)
        for path in HERE.rglob("test_*.py")
        for number in _TEST.findall(path.read_text(encoding="utf-8"))
    }
    traps = PAGE.read_text(encoding="utf-8").partition("## Traps")[2]
    listed = [int(number) for number in _ROW.findall(traps)]

    assert listed == list(range(1, 22))
    assert sorted(named) == listed
