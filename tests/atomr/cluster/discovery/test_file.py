"""Seeds in a file that others write."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio

from atomr.cluster import FileSeeds
from atomr.cluster.discovery.file import MAX_BYTES
from atomr.errors import DiscoveryError

if TYPE_CHECKING:
    from pathlib import Path


async def test_lines_comments_and_blanks(tmp_path: Path) -> None:
    file = tmp_path / "seeds"
    file.write_text("# ours\n a:1 \n\n\tb:2 # the other\r\nc:3", encoding="utf-8")
    assert await FileSeeds(file).find() == ("a:1", "b:2", "c:3")


async def test_it_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "seeds"
    seeds = FileSeeds(file)
    for content in ("a:1", "b:1\nc:1", "", "d:1"):
        new = tmp_path / "new"
        new.write_text(content, encoding="utf-8")
        new.replace(file)
        assert await seeds.find() == tuple(content.split())


async def test_a_missing_file_is_no_seeds_and_is_said_once_each_time_it_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "seeds"
    seeds = FileSeeds(file)
    assert (await seeds.find(), await seeds.find()) == ((), ())
    file.write_text("a:1", encoding="utf-8")
    assert await seeds.find() == ("a:1",)
    file.unlink()
    assert await seeds.find() == ()
    said = f"{file}: there is no such file, so no seeds"
    assert [record.getMessage() for record in caplog.records] == [said, said]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff\xfe", "it is no text"), (b"a:1\n" * (MAX_BYTES // 4 + 1), "more than")],
)
async def test_what_is_no_list_is_a_failure(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "seeds"
    file.write_bytes(content)
    with pytest.raises(DiscoveryError, match=said):
        await FileSeeds(file).find()


async def test_what_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(DiscoveryError, match="directory"):
        await FileSeeds(tmp_path).find()


async def test_a_file_that_cannot_be_read_to_its_end_holds_up_nobody_who_leaves(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "seeds"
    os.mkfifo(pipe)
    with trio.move_on_after(0.05) as left:
        await FileSeeds(pipe).find()
    assert left.cancelled_caught
    # Lets the thread end.
    pipe.write_text("a:1", encoding="utf-8")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
async def test_a_file_of_somebody_else_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "seeds"
    file.write_text("a:1", encoding="utf-8")
    file.chmod(0)
    with pytest.raises(DiscoveryError, match="Permission denied"):
        await FileSeeds(file).find()
