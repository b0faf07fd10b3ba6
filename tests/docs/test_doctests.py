"""Every example in a docstring or a Markdown file does what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
# The examples in the tutorial's files are run by its own programs.
TUTORIAL = {*ROOT.glob("docs/tutorial/*.md")}
# Engines that `make engines` installs: what needs them is tested there.
ELSEWHERE = {"cuda", "llama_cpp", "ray", "vllm"}
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")} - TUTORIAL)


def module_names() -> list[str]:
    plugins = [folder.name for folder in sorted(ROOT.glob("plugins/*/"))]
    names = ["atomr", "atomr_infer", *plugins]
    for package in list(names):
        path = importlib.import_module(package).__path__
        found = pkgutil.walk_packages(path, f"{package}.")
        names += [module.name for module in found]
    # Running a program's __main__ is not importing it.
    return [name for name in names if not name.endswith("__main__")]


@pytest.mark.parametrize("name", module_names())
def test_the_examples_of_a_module(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ELSEWHERE:
            raise
        pytest.skip(f"{error.name} is installed in an environment of its own")
    result = doctest.testmod(module, optionflags=FLAGS)

    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page(page: Path) -> None:
    result = doctest.testfile(str(page), module_relative=False, optionflags=FLAGS)

    assert result.failed == 0
