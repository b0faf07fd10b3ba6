"""The tutorial runs as a reader runs it: chapter by chapter, file by file.

A block that begins with a file's name is that file; any other is a program,
and prints the block of ``text`` behind it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TUTORIAL = Path(__file__).parents[2] / "docs/tutorial"
CHAPTERS = sorted(TUTORIAL.glob("[0-9]*.md"))

_BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE
)
_FILE = re.compile(r"# (kv/\w+\.py)\n")


def blocks(chapter: Path) -> list[tuple[str, str]]:
    return _BLOCK.findall(chapter.read_text(encoding="utf-8"))


def forget_modules() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "kv"]:
        del sys.modules[name]


def save_or_run(code: str, folder: Path) -> str:
    """Do with a block what a reader does; return what it printed."""
    named = _FILE.match(code)
    if named is not None:
        (folder / named[1]).write_text(code, encoding="utf-8")
        return ""
    forget_modules()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<chapter>", "exec"), {"__name__": "__page__"})  # its own
    return printed.getvalue()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader's folder, on the path of imports."""
    (tmp_path / "kv").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    # Two versions of a file within one second would look the same to the cache.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    forget_modules()
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("last", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_a_chapter_prints_what_it_says(last: Path, project: Path) -> None:
    for chapter in CHAPTERS[: CHAPTERS.index(last)]:
        for code, _ in blocks(chapter):
            if _FILE.match(code):
                save_or_run(code, project)
        # As its chapter tells the reader to.
        if chapter.stem == "05-registry":
            (project / "kv/directory.py").unlink()

    for code, output in blocks(last):
        assert save_or_run(code, project) == output
        logging.disable(logging.NOTSET)


def test_every_chapter_has_programs_to_run() -> None:
    programs = {
        chapter.stem: sum(not _FILE.match(code) for code, _ in blocks(chapter))
        for chapter in CHAPTERS
    }

    assert len(programs) == 8
    assert all(programs.values()), programs
