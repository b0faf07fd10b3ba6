"""What a node knows of the processes that ran before it under its name."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import pytest
import trio

from atomr_infer.config.node import NodeConfig
from atomr_infer.serving.alive import Alive
from atomr_infer.serving.node import ServingNode


async def _run(file: Alive) -> None:
    """Run for a moment, and end in order."""
    with trio.move_on_after(0.01):
        await file.run()


class _Clock:
    """The machine's time since it was started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.machine = "first"
        alive = "atomr_infer.serving.alive"
        monkeypatch.setattr(f"{alive}._since_start_s", lambda: self.now_s)
        monkeypatch.setattr(f"{alive}._machine", lambda: self.machine)


class _Disk:
    """Where nothing but an empty file finds room while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        write = Path.write_bytes

        def write_bytes(path: Path, content: bytes) -> int:
            if content and self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return write(path, content)

        monkeypatch.setattr(Path, "write_bytes", write_bytes)


async def test_where_there_is_no_file_there_was_no_such_node(tmp_path: Path) -> None:
    assert Alive(tmp_path / "alive").past().quiet_s == math.inf


async def test_the_quiet_since_the_last_process_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    clock = _Clock(monkeypatch)
    await _run(Alive(tmp_path / "alive"))
    clock.now_s += 7
    after = Alive(tmp_path / "alive")
    assert after.past().quiet_s == 7
    clock.now_s += 3  # as long as this one has not used anything either
    assert after.past().quiet_s == 10


async def test_a_process_that_was_killed_ran_until_its_next_note_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    clock = _Clock(monkeypatch)
    killed = Alive(tmp_path / "alive")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(killed.run)
        await trio.sleep(3)
        text = (tmp_path / "alive").read_bytes()
        nursery.cancel_scope.cancel()
    (tmp_path / "alive").write_bytes(text)
    clock.now_s += 3
    assert Alive(tmp_path / "alive").past().quiet_s == 0
    clock.now_s += 60
    assert Alive(tmp_path / "alive").past().quiet_s == 59


async def test_a_machine_that_was_started_anew_has_been_quiet_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    clock = _Clock(monkeypatch)
    await _run(Alive(tmp_path / "alive"))
    clock.machine, clock.now_s = "second", 12.0
    assert Alive(tmp_path / "alive").past().quiet_s == 12


async def test_a_file_that_is_no_note_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "alive").write_bytes(b'{"machine"')
    assert Alive(tmp_path / "alive").past().quiet_s < 1


async def test_a_full_disk_ends_nobody_and_the_next_process_takes_nothing_for_granted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: object,
) -> None:
    clock = _Clock(monkeypatch)
    disk = _Disk(monkeypatch)
    file = Alive(tmp_path / "alive")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.run)
        await trio.sleep(3)
        disk.is_full = True
        await trio.sleep(60)
        clock.now_s += 600
        assert Alive(tmp_path / "alive").past().quiet_s == 0
        assert len(caplog.records) == 1
        assert "No space left on device" in caplog.text
        disk.is_full = False
        await trio.sleep(3)
        assert caplog.records[-1].message.endswith("alive is written again")
        nursery.cancel_scope.cancel()
    clock.now_s += 7
    assert Alive(tmp_path / "alive").past().quiet_s == 7


async def test_where_not_even_an_empty_file_can_be_it_does_not_go_on_unseen(
    tmp_path: Path, autojump_clock: object
) -> None:
    with pytest.raises(FileNotFoundError):
        await Alive(tmp_path / "nowhere" / "alive").run()


async def test_a_node_that_keeps_nothing_is_new_where_it_has_no_others(
    tmp_path: Path,
) -> None:
    assert ServingNode(NodeConfig(name="a")).past().quiet_s == math.inf
    elsewhere = ServingNode(NodeConfig(name="a"), alive=tmp_path / "alive")
    async with elsewhere.open():
        assert (tmp_path / "alive").exists()
    kept = NodeConfig(name="a", state_dir=str(tmp_path))
    async with ServingNode(kept).open():
        pass
    assert ServingNode(kept).past().quiet_s < 60
