"""``serve --workers``: several processes, one port, one cluster."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer.cli.plan import ServePlan
from atomr_infer.cli.serving.workers import Crew
from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.config.node import NodeConfig
from atomr_infer.model.deployment import Deployment
from tests.cli.conftest import START_S, run_command, start_command
from tests.gateway.http import chat, request, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Command

CONFIG = """\
[gateway]
bind = "127.0.0.1:0"
[node]
name = "w"
[[deployment]]
name = "m"
runtime = "mock"
"""


def workers_of(command: Command) -> list[int]:
    """The process ids of the workers that run now.

    Not by what each thread has started: it may end while it is asked.
    """
    pids = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]
    return [pid for pid in sorted(pids) if stat_of(pid)[1] == str(command.process.pid)]


def runs(pid: int) -> bool:
    """Whether there is a process, and it is no zombie."""
    return stat_of(pid)[0] not in ("", "Z")


def stat_of(pid: int) -> list[str]:
    """A process's state, its parent, and what else Linux says of it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ["", ""]  # there is none
    return stat.rpartition(")")[2].split()


async def ask(command: Command) -> int:
    """Ask on a connection of its own, and return the status."""
    return (await chat(command.port)).status


@pytest.mark.slow
async def test_a_worker_that_is_killed_costs_nobody_an_answer(
    write: Callable[[str], str],
) -> None:
    arguments = ("serve", "-c", write(CONFIG), "--workers", "2")
    async with start_command(*arguments) as command:
        await command.serving()
        assert "with 2 workers" in command.stdout
        asked = 0
        while len(set(re.findall(r"worker (\d): atomr_infer", command.stderr))) < 2:
            assert await ask(command) == 200
            asked += 1
            assert asked < 2000, "one worker takes all connections"
        killed, other = workers_of(command)
        os.kill(killed, signal.SIGKILL)
        assert [await ask(command) for _ in range(20)] == [200] * 20
        await command.said("was ended by SIGKILL; it is started again")
        await until(lambda: command.stderr.count("m: ready") == 3, within_s=START_S)
        assert other in workers_of(command)
        command.send(signal.SIGTERM)
        assert await command.ended() == 0
        assert not runs(other)
    # The parent tells it as the workers tell theirs: with the time, and how bad it is.
    assert re.search(
        rf"^\d\d:\d\d:\d\d WARNING \S+: worker \d \(pid {killed}\) was ended",
        command.stderr,
        re.MULTILINE,
    )
    assert "NORMAL" not in command.stderr
    assert command.stderr.endswith("atomr-infer: stopped\n")
    assert "Traceback" not in command.stderr


@pytest.mark.slow
async def test_what_an_operator_does_is_done_by_all_workers(
    write: Callable[[str], str],
) -> None:
    key = {"ADMIN": "adm-0123456789"}
    admin = 'bind = "127.0.0.1:0"\nadmin_key = { env = "ADMIN" }'
    config = write(CONFIG.replace('bind = "127.0.0.1:0"', admin))
    async with start_command("serve", "-c", config, "--workers", "2", **key) as command:
        await command.serving()
        to = ("-c", config, "--url", f"http://127.0.0.1:{command.port}")
        out = ""
        with trio.fail_after(START_S):
            # They serve at once, and are ready when they have heard of each other.
            while not ("node w-1: ready" in out and "node w-2: ready" in out):
                code, out, err = await run_command("status", "--all-nodes", *to, **key)
                assert (code, err) == (0, "")
        # Whichever of them is asked tells Prometheus of both.
        shown = {"authorization": "Bearer adm-0123456789"}
        told = await request(command.port, "GET", "/admin/metrics", b"", **shown)
        for node in ("w-1", "w-2"):
            assert f'atomr_infer_ready{{node="{node}"}} 1\n' in told.body.decode()
        code, out, err = await run_command("drain", *to, **key)
        assert (code, err) == (0, "")
        assert out.startswith("not ready any more")
        code, out, err = await run_command("status", "--all-nodes", *to, **key)
        assert out.count("draining; 0 requests run") == 2
        code, out, err = await run_command("drain", "--undo", *to, **key)
        assert (code, out, err) == (0, "requests are taken again\n", "")
        assert [await ask(command) for _ in range(10)] == [200] * 10


@pytest.mark.slow
async def test_workers_end_with_a_parent_that_was_killed(
    write: Callable[[str], str],
) -> None:
    arguments = ("serve", "-c", write(CONFIG), "--workers", "2")
    async with start_command(*arguments) as command:
        await command.serving()
        workers = workers_of(command)
        assert len(workers) == 2
        command.send(signal.SIGKILL)
        await command.ended()
        await until(lambda: not any(map(runs, workers)), within_s=START_S)


@pytest.mark.slow
async def test_what_one_cannot_serve_none_does(write: Callable[[str], str]) -> None:
    config = CONFIG.replace('name = "w"\n', 'name = "w"\nstate_dir = "atomr.toml"\n')
    arguments = ("serve", "-c", write(config), "--workers", "2")
    async with start_command(*arguments) as command:
        assert await command.ended(within_s=START_S) == 1
    assert "before it served; its own lines say why" in command.stderr
    assert "Traceback" not in command.stderr


async def test_workers_make_a_cluster_of_their_own(write: Callable[[str], str]) -> None:
    cluster = """\
[cluster]
name = "prod"
voters = ["w"]
cookie = { env = "COOKIE" }
ca = "ca.pem"
certificate = "w.pem"
private_key = "w.key"
"""
    arguments = ("serve", "-c", write(CONFIG + cluster), "--workers", "2")
    async with start_command(*arguments) as command:
        with trio.fail_after(START_S):
            assert await command.ended(within_s=START_S) == 1
    assert "--workers makes a cluster of its own; leave [cluster] out" in command.stderr


HEEDS = """\
import json, os, signal
signal.signal(signal.SIGTERM, signal.SIG_DFL)
told = json.loads(os.environ["ATOMR_INFER_WORKER"])["told"]
os.write(told, b'{"engines": {}, "features": {}}\\n')
signal.pause()
"""


@pytest.mark.parametrize("starts", [1, 3], ids=["at_first", "again"])
async def test_a_stop_while_a_worker_starts_ends_that_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: int
) -> None:
    plan = ServePlan(
        deployments=(Deployment(name="m", runtime="mock"),),
        gateway=GatewayConfig(bind="127.0.0.1:0"),
        source="atomr.toml",
        node=NodeConfig(name="w"),
    )
    command = (sys.executable, "-SEc", HEEDS)
    crew = Crew(plan, command, count=2, folder=tmp_path)
    spawn, spawned = trio.lowlevel.open_process, list[trio.Process]()

    async def stopped_meanwhile(*args: Any, **options: Any) -> trio.Process:
        process = await spawn(*args, **options)
        spawned.append(process)
        if len(spawned) == starts:
            os.kill(os.getpid(), signal.SIGTERM)
            with trio.fail_after(START_S):
                await crew._until(lambda: crew._stopping)
        return process

    async def kill_one() -> None:
        await crew._until(lambda: all(worker.ready for worker in crew._workers))
        spawned[0].kill()  # it is started again

    monkeypatch.setattr(trio.lowlevel, "open_process", stopped_meanwhile)
    with trio.fail_after(START_S):
        async with trio.open_nursery() as nursery:
            if starts > 2:
                nursery.start_soon(kill_one)
            await crew.run()
            nursery.cancel_scope.cancel()
    assert len(spawned) >= starts
    assert [process.poll() is None for process in spawned] == [False] * len(spawned)


ENDS_ONCE = """\
import json, os, pathlib, signal
signal.signal(signal.SIGTERM, signal.SIG_DFL)
told = json.loads(os.environ["ATOMR_INFER_WORKER"])["told"]
os.write(told, b'{"engines": {}, "features": {}}\\n')
try:
    pathlib.Path("FOLDER", "has_ended").mkdir()
except FileExistsError:
    signal.pause()
HOW
"""


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("os._exit(3)", "ended with status 3"),
        ("os.kill(os.getpid(), 40)", "was ended by signal 40"),
    ],
)
async def test_how_a_worker_ended_is_told_by_name_and_without_a_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str, told: str
) -> None:
    plan = ServePlan(
        deployments=(Deployment(name="m", runtime="mock"),),
        gateway=GatewayConfig(bind="127.0.0.1:0"),
        source="atomr.toml",
        node=NodeConfig(name="w"),
    )
    script = ENDS_ONCE.replace("FOLDER", str(tmp_path)).replace("HOW", how)
    command = (sys.executable, "-SEc", script)
    crew = Crew(plan, command, count=2, folder=tmp_path)
    with trio.fail_after(START_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crew.run)
            await until(lambda: "restarts" in caplog.text, within_s=START_S)
            os.kill(os.getpid(), signal.SIGTERM)
    told_of = [record.getMessage() for record in caplog.records]
    ended = re.compile(rf"worker \d \(pid \d+\) {told}; it is started again")
    assert [bool(ended.fullmatch(line)) for line in told_of] == [True, False]
    assert re.search(rf"restarts 'w-\d' in 0.2 s after .*{told}", told_of[1])
    assert [record.exc_info for record in caplog.records] == [None, None]
