"""Every way in which a child can die or misbehave has its own typed error."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import attrs
import pytest
import trio

from atomr_infer.bridge import BridgedRunner, BridgeLimits, open_bridged_runner
from atomr_infer.bridge.protocol.frames import PROTOCOL_VERSION
from atomr_infer.errors import (
    ContextLengthError,
    EngineCrashedError,
    EngineError,
    EngineHungError,
    EngineStartError,
    InferenceError,
    InternalError,
)
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.deployment import Deployment, Timeouts
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.tensors import Datatype, InferRequest, Tensor
from atomr_infer.runtimes.contract import Progress, RunnerContext

HERE = Path(__file__).parent
IMPATIENT = BridgeLimits(
    heartbeat_s=0.1, silent_s=0.5, cancel_s=0.5, close_s=2.0, terminate_s=0.5
)
SIGKILLED = "the engine process of deployment 'awk': killed by SIGKILL (9)"

Opener = Callable[..., AbstractAsyncContextManager[BridgedRunner]]
Ask = Callable[..., ExecuteBatch]
Gone = Callable[[int], bool]
Until = Callable[[Callable[[], bool]], Awaitable[None]]


async def fate(runner: BridgedRunner) -> InferenceError:
    with trio.fail_after(30):
        return await runner.failed()


# --- once it serves ---------------------------------------------------------


async def test_killed_while_idle(bridged: Opener, ask: Ask) -> None:
    async with bridged() as runner:
        os.kill(runner.pid, signal.SIGKILL)
        error = await fate(runner)
        assert (type(error), error.message) == (EngineCrashedError, SIGKILLED)
        with pytest.raises(EngineCrashedError):
            async with runner.execute(ask("count 1")):
                pass


async def test_killed_while_streaming_raises_in_every_stream(
    bridged: Opener, ask: Ask
) -> None:
    raised: list[str] = []

    async def read(runner: BridgedRunner, ready: trio.Event) -> None:
        async with runner.execute(ask("stall")) as chunks:
            await anext(chunks)
            ready.set()
            with pytest.raises(EngineCrashedError) as caught:
                await anext(chunks)
            raised.append(caught.value.message)

    async with bridged() as runner:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                events = [trio.Event() for _ in range(4)]
                for event in events:
                    nursery.start_soon(read, runner, event)
                for event in events:
                    await event.wait()
                os.kill(runner.pid, signal.SIGKILL)
        assert raised == [SIGKILLED] * 4
        assert runner.active == 0


async def test_exit_status_is_told(bridged: Opener, ask: Ask) -> None:
    async with bridged() as runner, runner.execute(ask("exit 3")) as chunks:
        with pytest.raises(EngineCrashedError, match="exited with status 3"):
            async for _ in chunks:
                pass


@pytest.mark.parametrize("how", ["stopped", "holds the interpreter"])
async def test_a_silent_child_is_killed_as_hung(
    bridged: Opener, ask: Ask, gone: Gone, how: str
) -> None:
    async with bridged(limits=IMPATIENT) as runner:
        async with runner.execute(ask("hold 1000")) as chunks:
            await anext(chunks)
            if how == "stopped":
                os.kill(runner.pid, signal.SIGSTOP)
            with trio.fail_after(30), pytest.raises(EngineHungError) as caught:
                await anext(chunks)
        assert caught.value.message == (
            "the engine process of deployment 'awk' did not answer for 0.5 s "
            "(timeouts.silent_s) and was killed"
        )
        assert type(await fate(runner)) is EngineHungError
    assert gone(runner.pid)


@pytest.mark.parametrize("how", ["told no token", "made no step"])
async def test_an_engine_that_makes_nothing_is_killed_though_its_heart_beats(
    bridged: Opener, ask: Ask, gone: Gone, how: str
) -> None:
    blind = how == "told no token"
    limits = attrs.evolve(
        IMPATIENT,
        silent_s=9.0,
        stuck_s=9.0 if blind else 1.5,
        blind_s=1.5 if blind else 9.0,
    )
    ref = "awkward:PLUGIN" if blind else "awkward:STEPPED"
    told = []

    async def count(runner: BridgedRunner) -> None:
        # What needs no engine is no sign of one.
        with suppress(EngineHungError):
            while True:
                await runner.count_tokens(ask("a b"))
                await trio.sleep(0.05)

    async with (
        bridged(ref, limits=limits) as runner,
        trio.open_nursery() as nursery,
    ):
        # The pauses are longer than the bound, all together.
        async with runner.execute(ask("stall" if blind else "step 8 0.3")) as chunks:
            told.append((await anext(chunks)).text)
            if blind:
                nursery.start_soon(count, runner)
            with trio.fail_after(30), pytest.raises(EngineHungError) as caught:
                async for chunk in chunks:
                    told.append(chunk.text)
            nursery.cancel_scope.cancel()
        assert caught.value.message == (
            f"the engine of deployment 'awk' has requests and {how} for 1.5 s "
            "(timeouts.stuck_s); its process was killed"
        )
        assert runner.active == 0
    # Steps are a sign, so the pauses between them were none.
    assert told == (["first"] if blind else ["first", "last"])
    assert gone(runner.pid)


async def test_an_engine_that_ends_each_request_with_an_error_is_none_that_stands(
    bridged: Opener, ask: Ask
) -> None:
    async with bridged(limits=attrs.evolve(IMPATIENT, silent_s=9.0, blind_s=2.0)) as it:
        for _ in range(10):
            with pytest.raises(ContextLengthError):
                async with it.execute(ask("later 0.3")) as chunks:
                    await anext(chunks)


async def test_ends_that_were_asked_for_hide_no_engine_that_stands_still(
    bridged: Opener, ask: Ask
) -> None:
    limits = attrs.evolve(IMPATIENT, silent_s=9.0, blind_s=2.0)
    async with bridged(limits=limits) as runner:
        with trio.fail_after(60), pytest.raises(EngineHungError):
            while True:
                with trio.move_on_after(0.3):
                    async with runner.execute(ask("later 1000")) as chunks:
                        await anext(chunks)


@pytest.mark.parametrize("ref", ["awkward:NAMED", "awkward:TRUE"])
async def test_steps_that_are_no_count_are_none(
    bridged: Opener, ask: Ask, ref: str
) -> None:
    limits = attrs.evolve(IMPATIENT, silent_s=9.0, stuck_s=0.3, blind_s=0.6)
    async with (
        bridged(ref, limits=limits) as runner,
        runner.execute(ask("stall")) as chunks,
    ):
        await anext(chunks)
        with trio.fail_after(30), pytest.raises(EngineHungError) as caught:
            await anext(chunks)
    assert "told no token for 0.6 s" in caught.value.message


async def test_a_runner_is_as_patient_as_its_deployment_says_now(
    bridged: Opener, ask: Ask, gone: Gone
) -> None:
    async with bridged(limits=IMPATIENT) as runner:
        runner.reread(
            Deployment(name="awk", runtime="awkward", timeouts=Timeouts(stuck_s=0.3))
        )
        async with runner.execute(ask("stall")) as chunks:
            await anext(chunks)
            with trio.fail_after(30), pytest.raises(EngineHungError, match=r"0\.3 s"):
                await anext(chunks)
    assert gone(runner.pid)


@pytest.mark.slow
async def test_an_idle_child_is_not_hung(bridged: Opener, ask: Ask) -> None:
    async with bridged(limits=IMPATIENT) as runner:
        with trio.move_on_after(4 * IMPATIENT.silent_s):
            pytest.fail(str(await runner.failed()))


async def test_a_generation_that_does_not_stop_costs_the_child(
    bridged: Opener, ask: Ask, gone: Gone
) -> None:
    async with bridged(limits=IMPATIENT) as runner:
        async with runner.execute(ask("cling")) as chunks:
            await anext(chunks)
        error = await fate(runner)
        assert type(error) is EngineHungError
        assert "a cancelled generation of deployment 'awk' went on" in error.message
        assert runner.active == 0
    assert gone(runner.pid)


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ("00000003ffffff", "not a frame"),
        ("ffffffff", "a frame of 4294967295 bytes is announced"),
    ],
)
async def test_garbage_from_the_child_costs_it_its_life(
    bridged: Opener, ask: Ask, gone: Gone, sent: str, problem: str
) -> None:
    async with bridged() as runner:
        async with runner.execute(ask(f"garbage {sent}")) as chunks:
            with trio.fail_after(30), pytest.raises(EngineCrashedError) as caught:
                async for _ in chunks:
                    pass
        assert "broke the bridge's protocol and was killed: " in caught.value.message
        assert problem in caught.value.message
    assert gone(runner.pid)


STARVED = "the engine's process is out of memory: "
WANTS = pytest.mark.parametrize(
    ("how", "why"),
    [
        ("memory", STARVED + "MemoryError:"),
        ("thread", STARVED + "RuntimeError: can't start new thread"),
        ("told", "the GPU is full"),
    ],
)


async def starved(
    runner: BridgedRunner, batch: ExecuteBatch
) -> tuple[type[EngineError], str | None, str]:
    with pytest.raises(EngineError) as caught:
        async with runner.execute(batch) as chunks:
            async for _ in chunks:
                pass
    return type(caught.value), caught.value.code, caught.value.message


@WANTS
async def test_want_of_memory_costs_a_request_each_time(
    bridged: Opener, ask: Ask, how: str, why: str
) -> None:
    async with bridged() as runner:
        for number in range(5):
            batch = ask(f"starve {how}", f"r{number}")
            assert await starved(runner, batch) == (EngineError, "out_of_memory", why)
        async with runner.execute(ask("asked")) as chunks:
            assert [chunk.text async for chunk in chunks] == ["5"]


@WANTS
async def test_a_child_without_memory_for_a_few_tokens_is_ended(
    bridged: Opener, ask: Ask, gone: Gone, how: str, why: str
) -> None:
    async with bridged() as runner:
        alone = (EngineError, "out_of_memory", why)
        assert await starved(runner, ask(f"starve {how} all")) == alone
        error = await fate(runner)
        ended = (EngineCrashedError, "out_of_memory", why)
        assert (type(error), error.code, error.message) == ended
    assert gone(runner.pid)


async def test_a_want_of_memory_of_embeddings_is_looked_into(
    bridged: Opener, gone: Gone
) -> None:
    async with bridged() as runner:
        with pytest.raises(EngineError) as caught:
            await runner.embed(
                EmbedRequest(request_id="r", model="m", inputs=("starve",))
            )
        assert caught.value.code == "out_of_memory"
        assert type(await fate(runner)) is EngineCrashedError
    assert gone(runner.pid)


@pytest.mark.parametrize("how", ["starve", "starve all"])
async def test_a_want_of_memory_of_tensors_is_looked_into(
    bridged: Opener, gone: Gone, how: str
) -> None:
    async with bridged("awkward:TENSORS") as runner:
        given = Tensor("x", Datatype.INT8, (2,), b"ab")
        wants = InferRequest(request_id="r", model="m", inputs=(given,), outputs=(how,))
        with pytest.raises(EngineError) as caught:
            await runner.infer(wants)
        assert (type(caught.value), caught.value.code) == (EngineError, "out_of_memory")
        if how == "starve":
            # It has memory for a zero, so it is left alone.
            found = await runner.infer(attrs.evolve(wants, outputs=()))
            assert found.outputs == (given,)
        else:
            error = await fate(runner)
            ended = type(error), error.code
            assert ended == (EngineCrashedError, "out_of_memory")
    assert gone(runner.pid)


async def test_an_answer_over_the_frame_cap_is_refused(
    bridged: Opener, ask: Ask
) -> None:
    async with (
        bridged(limits=BridgeLimits(max_frame_bytes=10_000)) as runner,
        runner.execute(ask("big 20000")) as chunks,
    ):
        with pytest.raises(EngineCrashedError, match="10000 is the most"):
            await anext(chunks)


async def test_an_answer_over_the_child_s_own_cap_costs_one_stream(
    bridged: Opener, ask: Ask
) -> None:
    async with bridged() as runner:
        async with runner.execute(ask(f"big {33 * 2**20}")) as chunks:
            with pytest.raises(InferenceError, match="the answer is lost: Text has"):
                await anext(chunks)
        async with runner.execute(ask("count 1")) as chunks:
            assert len([chunk async for chunk in chunks]) == 2


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("half", InternalError, r"^the runtime failed: ValueError: cannot .* \\udcff"),
        ("mute", InternalError, "MuteError, whose text cannot be told: ZeroDivision"),
        ("long", InternalError, r"x\.\.\. \(\d+ more characters\)$"),
        ("odd", EngineError, "^odd$"),
    ],
)
async def test_an_error_that_no_frame_carries_is_told_and_costs_one_stream(
    bridged: Opener, ask: Ask, how: str, kind: type[InferenceError], said: str
) -> None:
    async with bridged() as runner, runner.execute(ask("stall")) as other:
        assert (await anext(other)).text == "first"
        for _ in range(2):
            async with runner.execute(ask(f"say {how}")) as chunks:
                assert (await anext(chunks)).text == "partial"
                with pytest.raises(InferenceError, match=said) as caught:
                    await anext(chunks)
                assert type(caught.value) is kind
        assert runner.active == 1
        with trio.move_on_after(0.2) as waited:
            await anext(other)
        assert waited.cancelled_caught


async def test_a_stream_that_the_engine_takes_along_does_not_end_well(
    bridged: Opener, ask: Ask
) -> None:
    async with bridged() as runner, runner.execute(ask("stall")) as other:
        assert (await anext(other)).text == "first"
        async with runner.execute(ask("break")) as chunks:
            with pytest.raises(EngineCrashedError, match="nobody watches the engine"):
                async for _ in chunks:
                    pass
        with pytest.raises(EngineCrashedError, match="nobody watches the engine"):
            async for _ in other:
                pass


async def test_a_child_that_hangs_up_is_killed(
    bridged: Opener, ask: Ask, gone: Gone
) -> None:
    async with bridged() as runner:
        async with runner.execute(ask("hang_up")) as chunks:
            with trio.fail_after(30), pytest.raises(EngineCrashedError) as caught:
                async for _ in chunks:
                    pass
        assert "closed its connection" in caught.value.message
    assert gone(runner.pid)


async def test_helpers_of_the_engine_die_with_it(
    bridged: Opener, ask: Ask, gone: Gone, until: Until
) -> None:
    async with bridged() as runner:
        async with runner.execute(ask("helper")) as chunks:
            helper = int((await anext(chunks)).text)
        assert not gone(helper)
        os.kill(runner.pid, signal.SIGKILL)
        await fate(runner)
        await until(lambda: gone(helper))


# --- while it loads ---------------------------------------------------------


async def start_error(opening: AbstractAsyncContextManager[BridgedRunner]) -> str:
    with trio.fail_after(30), pytest.raises(EngineStartError) as caught:
        async with opening:
            pytest.fail("opened")
    assert type(caught.value) is EngineStartError
    return caught.value.message


async def test_exit_during_load_tells_status_and_last_output(bridged: Opener) -> None:
    assert await start_error(bridged(load="exit")) == (
        "the engine process of deployment 'awk': exited with status 3, while "
        "starting; its last output: first line | no such device"
    )


@pytest.mark.parametrize(
    ("level", "times"), [(logging.INFO, 1), (logging.WARNING, 1), (logging.ERROR, 0)]
)
async def test_what_it_wrote_last_is_in_the_log_once_at_any_level(
    bridged: Opener, caplog: pytest.LogCaptureFixture, level: int, times: int
) -> None:
    caplog.set_level(level, "atomr_infer.engine.awk")
    await start_error(bridged(load="exit"))
    for line in ("first line", "no such device"):
        assert caplog.messages.count(line) == times


async def test_one_that_is_closed_has_nothing_to_explain(
    bridged: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "atomr_infer.engine.awk")
    async with bridged(unload="mark"):
        pass
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("load", "doing"),
    [("hang", "reading the weights"), ("hold", "holding the interpreter")],
)
async def test_load_time_out_tells_what_it_was_doing(
    bridged: Opener, load: str, doing: str
) -> None:
    limits = BridgeLimits(terminate_s=0.2)
    assert await start_error(bridged(load=load, load_s=2.0, limits=limits)) == (
        "deployment 'awk' was not ready after 2 s (timeouts.load_s), while "
        f"{doing}; its process was killed"
    )


async def test_configuration_error_in_the_child_is_the_reason(bridged: Opener) -> None:
    assert await start_error(bridged(load="config_error")) == "no such file: 'x.gguf'"


async def test_a_crash_of_what_starts_is_a_failed_start(bridged: Opener) -> None:
    assert await start_error(bridged(load="lost")) == "the core died"


async def test_a_start_that_fails_in_words_that_no_frame_carries_is_told(
    bridged: Opener,
) -> None:
    shown: list[Progress] = []
    context = RunnerContext(progress=shown.append)
    said = await start_error(bridged(load="half", context=context))
    assert said == r"ValueError: no such file: \ud800"
    assert [progress.phase for progress in shown] == [r"reading \ud800"]


async def test_bug_in_the_plugin_s_start_is_the_reason(bridged: Opener) -> None:
    message = await start_error(bridged(load="bug"))
    assert message == "ZeroDivisionError: in the plugin"


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("no_such_module:PLUGIN", "No module named 'no_such_module'"),
        ("awkward:NOTHING", "has no attribute 'NOTHING'"),
        ("awkward:NOT_A_PLUGIN", "is not a runtime plugin but 7"),
        (":", "cannot import ':'"),
    ],
)
async def test_a_plugin_that_cannot_be_imported_is_the_reason(
    bridged: Opener, ref: str, reason: str
) -> None:
    assert reason in await start_error(bridged(ref=ref))


async def test_interpreter_that_is_not_there_is_the_reason() -> None:
    opening = open_bridged_runner(
        "awkward:PLUGIN",
        Deployment(name="awk", runtime="awkward"),
        RunnerContext(),
        python="/nowhere/python",
    )
    assert (await start_error(opening)).startswith(
        "the interpreter '/nowhere/python' cannot be started: "
    )


async def test_interpreter_without_this_package_is_the_reason(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho 'No module named atomr_infer' >&2\nexit 1\n")
    bare.chmod(0o755)
    opening = open_bridged_runner(
        "awkward:PLUGIN",
        Deployment(name="awk", runtime="awkward"),
        RunnerContext(),
        python=str(bare),
    )
    message = await start_error(opening)
    assert "exited with status 1" in message
    assert message.endswith("No module named atomr_infer")


async def test_options_that_cannot_cross_are_the_reason(bridged: Opener) -> None:
    message = await start_error(bridged(number=2**70))
    assert message.startswith("deployment 'awk' cannot be sent: Open: ")


async def test_cancelled_while_loading_ends_the_child(bridged: Opener) -> None:
    before = children()
    with trio.move_on_after(0.5):
        async with bridged(load="hang"):
            pytest.fail("opened")
    assert children() == before


# --- what is left behind ----------------------------------------------------


def children() -> set[str]:
    """Child processes of this one, zombies included."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    return set(listed.read_text().split())


@pytest.mark.slow
async def test_no_descriptor_and_no_zombie_is_left_over_twenty_lives(
    bridged: Opener, ask: Ask
) -> None:
    async def live(number: int) -> None:
        if number % 4 == 0:
            await start_error(bridged(load="exit"))
            return
        async with bridged() as runner:
            async with runner.execute(ask("count 3")) as chunks:
                await anext(chunks)
            if number % 4 == 1:
                os.kill(runner.pid, signal.SIGKILL)
                await fate(runner)

    await live(1)  # whatever is opened once and kept is open now
    files, processes = sorted(os.listdir("/proc/self/fd")), children()
    for number in range(20):
        await live(number)
    assert sorted(os.listdir("/proc/self/fd")) == files
    assert children() == processes


ORPHAN_MAKER = """
import sys, trio
sys.path.insert(0, sys.argv[1])
from atomr_infer.bridge import open_bridged_runner
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.contract import RunnerContext

async def main():
    deployment = Deployment(name="awk", runtime="awkward")
    async with open_bridged_runner(
        "awkward:PLUGIN", deployment, RunnerContext(), python_path=[sys.argv[1]]
    ) as runner:
        batch = ExecuteBatch(
            request_id="r", model="m", messages=(Message(Role.USER, sys.argv[2]),)
        )
        async with runner.execute(batch) as chunks:
            first = await anext(chunks)
            print(runner.pid, first.text, flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("busy_with", ["stall", "hold 1000"])
async def test_the_child_dies_when_the_parent_is_killed(
    gone: Gone, until: Until, busy_with: str
) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220  returns at once
        [sys.executable, "-c", ORPHAN_MAKER, str(HERE), busy_with],
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        line = await trio.to_thread.run_sync(parent.stdout.readline)
        child = int(line.split()[0])
        await trio.sleep(0.5)  # by now, the second one holds its interpreter
        assert not gone(child)
        parent.kill()
    await until(lambda: gone(child))


async def test_the_engine_s_helpers_die_when_the_parent_is_killed(
    gone: Gone, until: Until
) -> None:
    parent = subprocess.Popen(  # noqa: ASYNC220  returns at once
        [sys.executable, "-c", ORPHAN_MAKER, str(HERE), "helper"],
        stdout=subprocess.PIPE,
    )
    try:
        assert parent.stdout is not None
        line = await trio.to_thread.run_sync(parent.stdout.readline)
        child, helper = map(int, line.split())
        group = members(child)
        # The guard is no child of the engine's, and signals to all leave it.
        guards = group - {child, helper}
        assert len(guards) == 1
        assert not guards & children_of(child)
        os.kill(min(guards), signal.SIGTERM)
    finally:
        parent.kill()
        parent.communicate()
    await until(lambda: all(map(gone, group)))


def members(group: int) -> set[int]:
    """The processes of a group."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,pgid="], check=True, capture_output=True, text=True
    ).stdout
    rows = (map(int, line.split()) for line in listed.splitlines())
    return {pid for pid, its_group in rows if its_group == group}


def children_of(pid: int) -> set[int]:
    """The children of a process."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_a_child_whose_parent_is_gone_before_it_starts_exits() -> None:
    # The process that starts it is not the one that it is told.
    exited = subprocess.run(
        [sys.executable, "-m", "atomr_infer.bridge.child", "0", "1"],
        check=False,
        timeout=60,
    )
    assert exited.returncode == 70


async def test_a_child_of_another_version_is_refused(
    tmp_path: Path, bridged: Opener
) -> None:
    # Stands for another release: the same child, which says another number.
    (tmp_path / "sitecustomize.py").write_text(
        "import atomr_infer.bridge.protocol.frames as f; f.PROTOCOL_VERSION = 99"
    )
    opening = open_bridged_runner(
        "awkward:PLUGIN",
        Deployment(name="awk", runtime="awkward"),
        RunnerContext(),
        python_path=[str(tmp_path), str(HERE)],
    )
    message = await start_error(opening)
    assert f"its bridge protocol is 99, ours {PROTOCOL_VERSION}" in message


async def test_engine_errors_call_for_a_restart() -> None:
    for error in (EngineCrashedError, EngineHungError):
        assert issubclass(error, EngineError)
        assert error.rebuild_session
