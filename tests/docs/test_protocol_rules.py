"""Each rule of the wire has a test that carries its id, and each id is a rule."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/protocol-rules.md"

# Only where the wire is tested: elsewhere a letter and a number mean other things.
FOLDERS = ("gateway", "plugins", "sdk", "serving", "testing_kit", "wire")

_ROW = re.compile(r"^\| ([SWT]\d+) \| .+ \|$", re.MULTILINE)
_TEST = re.compile(r"^(?:async )?def test_((?:[swt]\d+_)+)", re.MULTILINE)


def rules() -> list[str]:
    return _ROW.findall(PAGE.read_text(encoding="utf-8"))


def named_in_tests() -> Counter[str]:
    found: Counter[str] = Counter()
    for folder in FOLDERS:
        for path in (ROOT / "tests" / folder).rglob("test_*.py"):
            for ids in _TEST.findall(path.read_text(encoding="utf-8")):
                found.update(rule.upper() for rule in ids.split("_") if rule)
    return found


def test_the_rules_are_numbered_without_a_gap() -> None:
    wanted = [
        f"{kind}{n}"
        for kind, last in (("S", 10), ("W", 10), ("T", 8))
        for n in range(1, last + 1)
    ]
    assert rules() == wanted


def test_each_rule_has_a_test_and_each_test_a_rule() -> None:
    assert sorted(named_in_tests()) == sorted(rules())
