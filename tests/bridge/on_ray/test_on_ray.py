"""An engine on a node of Ray's is what one of this machine is, to its parent."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import pytest
import trio

from atomr_infer.bridge import (
    DEFAULT_LIMITS,
    BridgedRunner,
    BridgeLimits,
    open_bridged_runner,
)
from atomr_infer.errors import (
    EngineCrashedError,
    EngineHungError,
    EngineStartError,
    InferenceError,
)
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.deployment import Deployment, OptionValue, Timeouts
from atomr_infer.model.ray import RayHost
from atomr_infer.runtimes.conformance import CHECKS
from atomr_infer.runtimes.conformance_case import ConformanceCase
from atomr_infer.runtimes.contract import Progress, RunnerContext

pytestmark = [pytest.mark.engine, pytest.mark.slow]

IMPATIENT = BridgeLimits(
    heartbeat_s=0.5, silent_s=5.0, cancel_s=5.0, close_s=5.0, terminate_s=2.0
)
PLUGIN = "awkward:PLUGIN"
OWN = Path(__file__).parents[2] / "plugins/python/own.py"

Open = Callable[..., AbstractAsyncContextManager[BridgedRunner]]
Ask = Callable[..., ExecuteBatch]
Until = Callable[[Callable[[], bool]], Awaitable[None]]
Gone = Callable[[int], bool]


@pytest.fixture
def progress() -> list[Progress]:
    return []


@pytest.fixture
def on_ray(ray_address: str, ray_python: str, progress: list[Progress]) -> Open:
    """Open a bridge to an engine on Ray."""

    def open_it(
        limits: BridgeLimits = DEFAULT_LIMITS,
        load_s: float = 110.0,
        address: str = ray_address,
        interpreter: str | None = None,
        num_gpus: float = 0.0,
        **options: OptionValue,
    ) -> AbstractAsyncContextManager[BridgedRunner]:
        deployment = Deployment(
            name="awk",
            runtime="awkward",
            options=options,
            interpreter=interpreter,
            timeouts=Timeouts(load_s=load_s),
            ray=RayHost(address=address, interpreter=ray_python, num_gpus=num_gpus),
        )
        context = RunnerContext(progress=progress.append)
        return open_bridged_runner(PLUGIN, deployment, context, limits=limits)

    return open_it


def engine_and_actor(head: int) -> tuple[int, int]:
    """The processes of an engine on Ray's node, and of its actor."""
    parents, actors = {}, []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                line = (folder / "cmdline").read_bytes()
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(stat[1])
                if line.startswith(b"ray::Seat") and stat[0] not in "ZX":
                    actors.append(int(folder.name))
    # Others' clusters are not ours, and an actor that dies has no engine any more.
    ours = [actor for actor in actors if parents[parents[actor]] == head]
    [found] = [(pid, parent) for pid, parent in parents.items() if parent in ours]
    return found


async def texts(runner: BridgedRunner, batch: ExecuteBatch) -> list[str]:
    async with runner.execute(batch) as chunks:
        return [chunk.text async for chunk in chunks]


async def fate(runner: BridgedRunner) -> InferenceError:
    with trio.fail_after(120):
        return await runner.failed()


async def test_it_streams_and_stops_what_is_left(
    on_ray: Open, ask: Ask, progress: list[Progress]
) -> None:
    with trio.fail_after(120):
        async with on_ray() as runner:
            assert runner.capabilities.context_tokens == 4096
            assert await texts(runner, ask("count 200")) == [
                *(f"r:{number} " for number in range(200)),
                "",
            ]
            async with runner.execute(ask("stall")) as chunks:
                assert (await anext(chunks)).text == "first"
            assert (await texts(runner, ask("state")))[0].split()[0] == "0"
            assert runner.active == 0
    phases = [each.phase for each in progress]
    assert phases[1:2] == ["waiting for Ray to give it 1 CPU"], phases


async def test_what_a_runner_has_to_do_it_does_on_ray(
    ray_address: str, ray_python: str
) -> None:
    deployment = Deployment(
        name="own",
        runtime=f"python:{OWN}:count",
        interpreter=sys.executable,
        ray=RayHost(address=ray_address, interpreter=ray_python),
    )
    case = ConformanceCase(model="m", prompt=" ".join(f"w{n}" for n in range(40)))
    with trio.fail_after(300):
        async with open_bridged_runner(
            "atomr_infer_python.plugin:PLUGIN", deployment, RunnerContext()
        ) as runner:
            for check in CHECKS:
                await check(runner, case)
                assert runner.active == 0, check


async def test_a_reader_that_stops_holds_the_engine(on_ray: Open, ask: Ask) -> None:
    window = BridgeLimits(window=4)
    with trio.fail_after(120):
        async with on_ray(window) as runner, runner.execute(ask("count 9999")) as many:
            await anext(many)
            await trio.sleep(0.2)
            _, produced = (await texts(runner, ask("state")))[0].split()
            assert int(produced) <= 6


async def test_an_engine_that_dies_is_told_with_its_end_and_leaves_room_for_another(
    on_ray: Open, ray_head: int, ask: Ask
) -> None:
    with trio.fail_after(120):
        async with on_ray() as runner:
            engine, _ = engine_and_actor(ray_head)
            async with runner.execute(ask("stall")) as chunks:
                await anext(chunks)
                os.kill(engine, signal.SIGKILL)
                with pytest.raises(EngineCrashedError, match="killed by SIGKILL"):
                    await anext(chunks)
        async with on_ray() as runner:
            assert await texts(runner, ask("count 1")) == ["r:0 ", ""]


async def test_the_engine_dies_with_its_actor(
    on_ray: Open, ray_head: int, ask: Ask, gone: Gone, until: Until
) -> None:
    with trio.fail_after(120):
        async with on_ray() as runner:
            engine, actor = engine_and_actor(ray_head)
            os.kill(actor, signal.SIGKILL)
            error = await fate(runner)
            assert type(error) is EngineCrashedError
            assert "lost by Ray: " in error.message
            await until(lambda: gone(engine))


async def test_an_engine_that_says_nothing_is_killed_on_its_node(
    on_ray: Open, ray_head: int, gone: Gone, until: Until
) -> None:
    with trio.fail_after(120):
        async with on_ray(IMPATIENT) as runner:
            engine, actor = engine_and_actor(ray_head)
            os.kill(engine, signal.SIGSTOP)
            assert type(await fate(runner)) is EngineHungError
        await until(lambda: gone(engine) and gone(actor))


async def test_the_engine_dies_with_the_relay(
    on_ray: Open, ray_head: int, gone: Gone, until: Until
) -> None:
    with trio.fail_after(120):
        async with on_ray() as runner:
            engine, actor = engine_and_actor(ray_head)
            os.kill(runner.pid, signal.SIGKILL)
            assert type(await fate(runner)) is EngineCrashedError
            await until(lambda: gone(engine) and gone(actor))


async def test_a_start_that_fails_says_what_the_engine_says(on_ray: Open) -> None:
    with trio.fail_after(120), pytest.raises(EngineStartError, match="no such file"):
        async with on_ray(load="config_error"):
            pass


async def test_an_interpreter_that_is_not_on_the_node_is_told(on_ray: Open) -> None:
    said = "Ray's node cannot run the engine: the interpreter '/no/python' cannot be"
    with trio.fail_after(120), pytest.raises(EngineStartError, match=said):
        async with on_ray(interpreter="/no/python"):
            pass


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"num_gpus": 0.00001}, r"Ray cannot set 1e-05 GPU, 1 CPU aside: .*precision"),
        ({"address": "a..b:80"}, "there is no Ray at 'a..b:80': .*label"),
    ],
    ids=["amount", "host"],
)
async def test_what_ray_refuses_is_told(
    on_ray: Open, order: dict[str, float | str], said: str
) -> None:
    with trio.fail_after(120), pytest.raises(EngineStartError, match=said):
        async with on_ray(**order):
            pass


async def test_what_ray_does_not_have_is_waited_for_and_named(
    on_ray: Open, progress: list[Progress], until: Until
) -> None:
    async def wait_for_ever() -> None:
        async with on_ray(num_gpus=1):
            raise AssertionError("there is no GPU")

    waits = "waiting for Ray to give it 1 GPU, 1 CPU"
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_ever)
            await until(lambda: waits in [each.phase for each in progress])
            nursery.cancel_scope.cancel()


async def test_no_ray_is_told_at_once(on_ray: Open) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    await listeners[0].aclose()
    said = f"there is no Ray at '{address}'"
    with trio.fail_after(120), pytest.raises(EngineStartError, match=said):
        async with on_ray(address=address):
            pass


async def test_what_the_engine_prints_is_logged(
    on_ray: Open, ask: Ask, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atomr_infer.engine.awk")
    with trio.fail_after(120):
        async with on_ray() as runner:
            await texts(runner, ask("write 0"))
            await until(lambda: "red end" in caplog.text)
