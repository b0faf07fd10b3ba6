"""A limit on the memory of an engine's processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.bridge import open_bridged_runner
from atomr_infer.bridge.system.memory import (
    await_excess,
    excess,
    is_told,
    shares_of_group,
    taken_by_group,
)
from atomr_infer.errors import EngineCrashedError, EngineStartError
from atomr_infer.model.deployment import Deployment, changes_while_serving
from atomr_infer.runtimes.contract import RunnerContext
from tests.bridge.conftest import HERE

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from atomr_infer.bridge import BridgedRunner
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.deployment import OptionValue

    Ask = Callable[..., ExecuteBatch]


def process(proc: Path, pid: int, group: int, **kib: int) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(f"{pid} (a ) b) S 1 {group} {group} 0")
    lines = [f"{name}:\t{size:>8} kB" for name, size in kib.items()]
    (folder / "status").write_text("\n".join(["Name:\ta", *lines, ""]))


def rollup(proc: Path, pid: int, **kib: int) -> None:
    lines = [f"{name}:{size:>20} kB" for name, size in kib.items()]
    (proc / str(pid) / "smaps_rollup").write_text("\n".join(["1-2 ---p", *lines, ""]))


def limited(
    limit_gib: float, **options: OptionValue
) -> AbstractAsyncContextManager[BridgedRunner]:
    deployment = Deployment(
        name="awk", runtime="awkward", options=options, memory_limit_gib=limit_gib
    )
    return open_bridged_runner(
        "awkward:PLUGIN", deployment, RunnerContext(), python_path=[str(HERE)]
    )


def test_what_a_group_has_is_counted_and_files_and_others_are_not(
    tmp_path: Path,
) -> None:
    process(tmp_path, 7, 7, RssAnon=100, RssFile=9000, RssShmem=5, VmSwap=10)
    process(tmp_path, 8, 7, RssAnon=20, RssShmem=6, VmSwap=0)
    process(tmp_path, 9, 9, RssAnon=5000)
    process(tmp_path, 10, 7)  # a zombie
    (tmp_path / "11").mkdir()  # it has ended meanwhile
    (tmp_path / "sys").mkdir()
    assert taken_by_group(7, tmp_path) == (110 + 20 + 6) * 1024
    assert not is_told(tmp_path)


def test_a_name_that_is_cut_inside_a_character_is_no_ones_end(tmp_path: Path) -> None:
    process(tmp_path, 7, 7, RssAnon=100)
    process(tmp_path, 8, 8, RssAnon=5000)
    process(tmp_path, 9, 7, RssAnon=20)
    for pid in (8, 9):
        for name in ("stat", "status"):
            file = tmp_path / str(pid) / name
            file.write_bytes(file.read_bytes().replace(b"a", b"worker)1-\xc3\xa9\xc3"))
    assert taken_by_group(7, tmp_path) == 120 * 1024


def test_pages_that_processes_have_since_a_fork_are_counted_once(
    tmp_path: Path,
) -> None:
    process(tmp_path, 7, 7, RssAnon=150, RssShmem=5, VmSwap=40)
    process(tmp_path, 8, 7, RssAnon=150, RssShmem=6, VmSwap=40)
    rollup(tmp_path, 7, Pss=500, Pss_Anon=75, Pss_Shmem=3, Swap=40, SwapPss=20)
    rollup(tmp_path, 8, Pss=500, Pss_Anon=75, Pss_Shmem=3, Swap=40, SwapPss=20)
    assert taken_by_group(7, tmp_path) == (190 + 190 + 6) * 1024
    assert shares_of_group(7, tmp_path) == (95 + 95 + 6) * 1024
    assert excess(7, 196 * 1024, tmp_path) is None
    assert excess(7, 195 * 1024, tmp_path) == 196 * 1024


def test_where_a_share_is_not_told_all_that_a_process_has_counts(
    tmp_path: Path,
) -> None:
    process(tmp_path, 7, 7, RssAnon=100)
    process(tmp_path, 8, 7, RssAnon=20)
    rollup(tmp_path, 8, Pss=10)  # an old kernel
    assert excess(7, 119 * 1024, tmp_path) == 120 * 1024


async def test_a_look_is_made_until_there_is_too_much(tmp_path: Path) -> None:
    process(tmp_path, 7, 7, RssAnon=100)
    rollup(tmp_path, 7, Pss_Anon=50)
    with trio.move_on_after(0.2) as waited:
        await await_excess(7, 60 * 1024, turn_s=0.01, proc=tmp_path)
    assert waited.cancelled_caught
    rollup(tmp_path, 7, Pss_Anon=70)
    with trio.fail_after(10):
        taken = await await_excess(7, 60 * 1024, turn_s=0.01, proc=tmp_path)
    assert taken == 70 * 1024


async def test_helpers_that_were_forked_do_not_count_their_parent_again(
    ask: Ask,
) -> None:
    async with limited(0.4) as runner, runner.execute(ask("fork 150 4")) as chunks:
        assert (await anext(chunks)).text == "forked"
        assert taken_by_group(runner.pid) > 0.4 * 2**30
        with trio.move_on_after(1.5) as waited:
            await runner.failed()
        assert waited.cancelled_caught


async def test_an_engine_with_more_than_it_may_have_is_killed(ask: Ask) -> None:
    async with limited(0.4) as runner:
        with trio.fail_after(60):
            with pytest.raises(EngineCrashedError) as caught:
                async with runner.execute(ask("grow 600")) as chunks:
                    async for _ in chunks:
                        pass
            ended = await runner.failed()
    assert caught.value.message.startswith(
        "the processes of the engine of deployment 'awk' have 0."
    )
    assert caught.value.message.endswith(
        "GiB of memory, and may have 0.4 (memory_limit_gib); they were killed"
    )
    assert (caught.value.code, ended.code) == ("out_of_memory", "out_of_memory")


async def test_helpers_count_and_a_start_that_takes_too_much_has_failed() -> None:
    with trio.fail_after(60), pytest.raises(EngineStartError) as caught:
        async with limited(0.4, load="helpers"):
            pass
    assert "and may have 0.4 (memory_limit_gib)" in caught.value.message
    assert caught.value.code == "out_of_memory"


async def test_one_that_has_less_serves_on(ask: Ask) -> None:
    async with limited(0.4) as runner:
        async with runner.execute(ask("grow 50")) as chunks:
            assert (await anext(chunks)).text == "grown"
        with trio.move_on_after(1.5) as waited:
            await runner.failed()
        assert waited.cancelled_caught


async def test_a_system_that_does_not_tell_is_no_place_for_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("atomr_infer.bridge.opening.is_told", lambda: False)
    with pytest.raises(EngineStartError, match=r"memory_limit_gib is 0\.4, but this"):
        async with limited(0.4):
            pass


def test_a_limit_is_no_part_of_what_changes_while_it_serves() -> None:
    now = Deployment(name="a", runtime="ort")
    assert not changes_while_serving(now, attrs.evolve(now, memory_limit_gib=1.0))
    assert not changes_while_serving(now, attrs.evolve(now, environment={"A": "b"}))
