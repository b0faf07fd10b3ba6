"""Disks that are full, files that are locked, damaged or read-only."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from atomr_infer.errors import ConfigError
from atomr_infer.store.responses import ResponseStore

ROOT = 0

RIGHTS = "this user must be able to write the file and its folder"
DAMAGED = "it is damaged, or no such database; move it away and a new one is made"


def refusal(path: Path) -> str:
    """Why a store cannot be opened, without the words that all refusals share."""
    with pytest.raises(ConfigError) as caught:
        ResponseStore(path)
    assert caught.value.setting == "response_store"
    said = str(caught.value)
    shared = f"the response store {path} cannot be opened: "
    assert said.startswith(shared)
    return said.removeprefix(shared)


# --- at the start -------------------------------------------------------------


def test_what_is_no_database_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(b"not a database" * 100)
    assert refusal(path) == f"file is not a database; {DAMAGED}"
    assert path.read_bytes() == b"not a database" * 100


def test_a_database_of_another_program_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE response (question TEXT)")
    assert refusal(path) == f"no such column: id; {DAMAGED}"


def test_a_folder_in_the_files_place_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"unable to open database file; {RIGHTS}"


def test_a_database_that_is_held_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    ResponseStore(path).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        said = refusal(path)
    assert said == (
        "database is locked; another process has locked it; end that one, or name "
        "another file"
    )
    ResponseStore(path).close()


def test_two_gateways_may_share_a_file(tmp_path: Path) -> None:
    first = ResponseStore(tmp_path / "r.db")
    second = ResponseStore(tmp_path / "r.db")
    first.close()
    second.close()


# --- in a process of its own --------------------------------------------------

_CHILD = """
import logging, os, resource, sys, trio
from pathlib import Path
from atomr_infer.errors import ConfigError
from atomr_infer.store.responses import ResponseStore, StoredResponse
from atomr_infer.store.trouble import StoreError

path = Path(sys.argv[1])

def response(number, size):
    return StoredResponse(
        id=f"r{number}", owner=b"", created_s=100, items=b"[1]", body=b"x" * size,
    )

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
"""

READ_ONLY = (
    _CHILD
    + """
if os.getuid() == 0:
    os.setgroups([])
    os.setuid(65534)
try:
    ResponseStore(path)
except ConfigError as error:
    print(error)
"""
)

LIMITED = (
    _CHILD
    + """
async def main():
    store = ResponseStore(path)
    await store.put(response(0, 100))
    limit(path.with_name(path.name + "-wal").stat().st_size + 4096)
    for number in range(1, 4):
        try:
            await store.put(response(number, 100_000))
        except StoreError as error:
            print(error)
    limit(resource.RLIM_INFINITY)
    await store.put(response(9, 100_000))
    for name in ("r0", "r1", "r9"):
        found = await store.get(name, owner=b"", now_s=100)
        print(name, found is not None)
    store.close()

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
trio.run(main)
"""
)

FULL = (
    _CHILD
    + """
async def main():
    store = ResponseStore(path)
    stored = 0
    try:
        while True:
            await store.put(response(stored, 50_000))
            stored += 1
    except StoreError as error:
        print(error)
    kept = [
        name
        for name in map("r{}".format, range(stored))
        if await store.get(name, owner=b"", now_s=100) is not None
    ]
    print(len(kept) == stored > 0)
    store.close()

def fill():
    with open(path.with_name("filler"), "wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass

logging.disable()
trio.run(main)
try:
    fill()
except OSError:
    pass  # nothing is left
try:
    ResponseStore(path.with_name("other.db"))
except ConfigError as error:
    print(error)
"""
)


def run(source: str, path: Path, *before: str) -> list[str]:
    done = subprocess.run(
        [*before, sys.executable, "-c", source, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_file_that_may_not_be_written_is_named_before_a_request_is_taken(
    tmp_path: Path,
) -> None:
    if os.getuid() == ROOT:
        # Root writes everything; the child is somebody else, who must get here.
        above = Path(tempfile.gettempdir())
        for folder in (tmp_path, *tmp_path.parents):
            if folder.is_relative_to(above) and folder != above:
                folder.chmod(0o755)
    path = tmp_path / "r.db"
    ResponseStore(path).close()
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        (said,) = run(READ_ONLY, path)
    finally:
        tmp_path.chmod(0o755)
    assert said.startswith(f"the response store {path} cannot be opened: ")
    assert said.endswith(f"; {RIGHTS}")


def test_a_file_that_may_not_grow_loses_nothing_and_works_again_later(
    tmp_path: Path,
) -> None:
    path = tmp_path / "r.db"
    problem = (
        f"the response store {path} cannot be written: disk I/O error; its disk "
        "refuses: look for room, quotas and limits"
    )
    assert run(LIMITED, path) == [
        f"ERROR {problem}",
        problem,
        problem,
        problem,
        f"WARNING works again: {problem}",
        "r0 True",
        "r1 False",
        "r9 True",
    ]


def mounted() -> bool:
    """Whether this user may have a disk of its own, for as long as a process lives."""
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not mounted(), reason="no disk of our own can be mounted")
def test_a_full_disk_keeps_what_was_stored_and_says_what_to_do(tmp_path: Path) -> None:
    disk = f"mount -t tmpfs -o size=1m none {tmp_path}"
    path = tmp_path / "r.db"
    said = run(FULL, path, "unshare", "-Urm", "sh", "-c", f'{disk} && exec "$@"', "-")
    full = "database or disk is full; make room on its disk"
    other = tmp_path / "other.db"
    assert said == [
        f"the response store {path} cannot be written: {full}",
        "True",
        f"the response store {other} cannot be opened: {full}",
    ]


def test_a_folder_that_nobody_lets_us_see_into_is_told_like_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(ConfigError, match="cannot be opened"):
        ResponseStore(tmp_path / "none" / "r.db")
