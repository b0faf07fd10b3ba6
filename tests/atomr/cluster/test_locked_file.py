"""Files that one process has, and what is said of those that cannot be used."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from atomr.cluster.locked_file import LockedFile
from atomr.errors import AtomrError

ROOT = Path(__file__).parents[3]
TABLES = ("CREATE TABLE IF NOT EXISTS line (text TEXT NOT NULL)",)
DAMAGED = "throw it away"


class BadFileError(AtomrError):
    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path.name}: {problem}")


def opened(path: Path) -> LockedFile:
    return LockedFile(path, TABLES, damaged=DAMAGED, error=BadFileError)


def add(file: LockedFile, *lines: str) -> None:
    with file.writing():
        rows = [(line,) for line in lines]
        file.database.executemany("INSERT INTO line VALUES (?)", rows)


def lines(file: LockedFile) -> list[str]:
    with file.reading():
        return [text for (text,) in file.database.execute("SELECT text FROM line")]


def kept(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [text for (text,) in database.execute("SELECT text FROM line")]


def test_what_is_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "f"
    first = opened(path)
    with first.beginning():
        first.database.execute("INSERT INTO line VALUES ('began')")
    add(first, "a", "b")
    first.close()

    second = opened(path)
    assert lines(second) == ["began", "a", "b"]
    second.close()


def test_of_a_write_that_fails_nothing_is_there(tmp_path: Path) -> None:
    file = opened(tmp_path / "f")
    add(file, "a")
    with pytest.raises(ZeroDivisionError), file.writing():
        file.database.execute("INSERT INTO line VALUES ('b')")
        1 / 0  # noqa: B018

    assert lines(file) == ["a"]
    add(file, "c")
    assert lines(file) == ["a", "c"]
    file.close()


def test_a_second_one_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    first = opened(path)
    with first.beginning():
        add_nothing = first.database.execute("DELETE FROM line").fetchall()
    assert add_nothing == []
    with pytest.raises(BadFileError) as refused:
        opened(path)
    assert str(refused.value) == (
        "f: database is locked; another process has it open; end that one, or name"
        " another file"
    )
    first.close()

    opened(path).close()


def test_a_beginning_that_fails_closes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    first = opened(path)
    with pytest.raises(ZeroDivisionError), first.beginning():
        first.database.execute("INSERT INTO line VALUES ('a')")
        1 / 0  # noqa: B018

    second = opened(path)
    assert lines(second) == []
    second.close()


def test_a_file_of_other_content_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"no database, however long it may be " * 100)
    with pytest.raises(BadFileError) as refused:
        opened(path)

    assert str(refused.value) == f"f: file is not a database; {DAMAGED}"


def test_a_table_of_another_shape_is_said_to_be_damage(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE line (number INTEGER)")
    file = opened(path)
    with pytest.raises(BadFileError) as refused:
        lines(file)

    assert str(refused.value) == f"f: no such column: text; {DAMAGED}"
    file.close()


def test_a_page_that_is_damaged_is_found_at_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = opened(path)
    add(file, *[f"{number} " * 200 for number in range(100)])
    file.close()
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 4 * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    file = opened(path)
    with pytest.raises(BadFileError, match=DAMAGED), file.beginning():
        file.database.execute("SELECT 1")


def test_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadFileError) as refused:
        opened(tmp_path / "no" / "f")

    assert str(refused.value) == (
        "f: unable to open database file; this user must be able to write it and its"
        " folder"
    )


def test_a_write_that_is_killed_leaves_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = opened(path)
    add(file, "a", "b")
    file.close()
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.atomr.cluster.test_locked_file import opened\n"
        "file = opened(Path(sys.argv[1]))\n"
        "with file.writing():\n"
        "    file.database.execute(\"INSERT INTO line VALUES ('c')\")\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=300, check=False
    )

    assert done.returncode == -signal.SIGKILL
    assert kept(path) == ["a", "b"]


def test_a_disk_without_room_says_so_and_has_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = opened(path)
    add(file, "a")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        with pytest.raises(BadFileError) as refused:
            add(file, "x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)

    assert str(refused.value).split("; ")[1] in {
        "make room on its disk",
        "its disk refuses: look for room, quotas and limits",
    }
    assert lines(file) == ["a"]
    add(file, "b")
    file.close()
    assert kept(path) == ["a", "b"]
