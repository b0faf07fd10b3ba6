"""Every example in a docstring or a Markdown file does what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
# The examples in the tutorial's files are run by its own programs.
TUTORIAL = {*ROOT.glob("docs/tutorial/*.md")}
# Engines that `make engines` installs: what needs them is tested there.
ELSEWHERE = {"cuda", "llama_cpp", "ray", "vllm"}


def modules_with_examples() -> list[str]:
    """Return their names: to let ``doctest`` look into all takes a minute and more."""
    names = []
    for root in (ROOT, ROOT / "plugins"):
        for path in sorted(root.glob("atomr*/**/*.py")):
            if ">>> " not in path.read_text("utf-8"):
                continue
            parts = path.relative_to(root).with_suffix("").parts
            names.append(".".join(parts).removesuffix(".__init__"))
    # Running a program's __main__ is not importing it.
    return [name for name in names if not name.endswith("__main__")]


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ELSEWHERE:
            raise
        pytest.skip(f"{error.name} is installed in an environment of its own")
    result = doctest.testmod(module, optionflags=FLAGS)

    assert result.attempted
    assert result.failed == 0


def test_the_examples_of_pages() -> None:
    pages = {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")} - TUTORIAL
    shown = sorted(page for page in pages if ">>> " in page.read_text("utf-8"))
    failed = [
        page
        for page in shown
        if doctest.testfile(str(page), module_relative=False, optionflags=FLAGS).failed
    ]

    assert failed == []
