"""Every block of Python in a page runs, and prints what the page says it prints.

A block's output is the block of ``text`` behind it.  A page about a plugin of
several files has a test of its own.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.config.validate import validate_deployments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.mark import ParameterSet

ROOT = Path(__file__).parents[2]
PLUGIN_PAGE = ROOT / "docs/how-to/write-a-runtime.md"
# Its chapters build on each other: see test_tutorial.
TUTORIAL = {*ROOT.glob("docs/tutorial/*.md")}
PAGES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")} - {PLUGIN_PAGE} - TUTORIAL
)

_BLOCK = re.compile(
    r"^```(python|toml)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)


def blocks(language: str) -> Iterator[ParameterSet]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in _BLOCK.finditer(text):
            if found[1] == language:
                line = text.count("\n", 0, found.start()) + 1
                name = f"{page.relative_to(ROOT)}:{line}"
                yield pytest.param(found[2], found[3], id=name)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("code", "output"), list(blocks("python")))
def test_a_block_of_python_prints_what_the_page_says(
    code: str, output: str | None
) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<page>", "exec"), {"__name__": "__page__"})  # its own

    assert printed.getvalue() == (output or "")


@pytest.mark.parametrize(("text", "output"), list(blocks("toml")))
def test_a_block_of_toml_is_accepted(text: str, output: str | None) -> None:
    # A page names the reader's own environment.
    text = re.sub(r"(?m)^interpreter = .*$", f'interpreter = "{sys.executable}"', text)
    config = parse_config(text, "atomr.toml")
    validate_deployments(config.deployments, origin=config.origin)

    assert config.deployments
    assert output is None


def test_the_readme_has_blocks_to_run() -> None:
    pages = [str(case.id).partition(":")[0] for case in blocks("python")]

    assert pages.count("README.md") == 4
    assert pages.count("docs/explanation/otp-on-trio.md") == 7


def test_the_readme_says_what_its_programs_need_beside_this_package() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    brought = {"atomr", "atomr_infer", "attrs", "trio", *sys.stdlib_module_names}
    needed = set()
    for found in _BLOCK.finditer(page):
        imported = re.findall(r"(?m)^(?:import|from) (\w+)", found[2])
        for name in {*imported} - brought if found[1] == "python" else ():
            needed.add(name)
            # In the sentence that leads to the program.
            told = page[: found.start()].rstrip().rpartition("\n")[2]
            assert f"pip install {name}" in told

    assert needed == {"openai"}


def test_the_plugin_on_its_page_passes_the_conformance_suite(tmp_path: Path) -> None:
    page = PLUGIN_PAGE.read_text(encoding="utf-8")
    plugin, tests = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    [entry] = re.findall(r"^ {4}(shouting = .*)$", page, re.MULTILINE)
    info = tmp_path / "shouting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: shouting\nVersion: 1\n"
    )
    (info / "entry_points.txt").write_text(f"[atomr_infer.runtimes]\n{entry}\n")
    (tmp_path / "shouting.py").write_text(plugin)
    (tmp_path / "test_shouting.py").write_text(tests)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\npythonpath = .\n")

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout
