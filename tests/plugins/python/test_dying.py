"""An engine's process dies under load: who has heard nothing is asked for again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import attrs
import pytest
import trio

from atomr_infer.cluster import Cluster
from atomr_infer.errors import EngineCrashedError, EngineHungError, InferenceError
from atomr_infer.model.deployment import Deployment, Timeouts

DYING = Path(__file__).with_name("dying.py")
EACH = 4
WITHIN_S = 120.0  # of a busy machine


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        pytest.param("kill", EngineCrashedError, "killed by SIGKILL (9)", id="killed"),
        pytest.param(
            "memory",
            EngineCrashedError,
            "killed by SIGABRT (6)",
            id="out of memory",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "poison",
            EngineCrashedError,
            "an illegal memory access",
            id="poisoned",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "stop",
            EngineHungError,
            "did not answer for 2 s (timeouts.silent_s) and was killed",
            id="stopped",
            marks=pytest.mark.slow,
        ),
    ],
)
async def test_who_has_heard_something_is_told_and_the_others_are_answered(
    tmp_path: Path, how: str, error: type[InferenceError], message: str
) -> None:
    deployment = Deployment(
        name="m",
        runtime=f"python:{DYING}:answer",
        options={"sign": str(tmp_path / "died")},
        # Only who stands still has to be found out; a busy machine is silent as well.
        timeouts=Timeouts(silent_s=2.0 if error is EngineHungError else 15.0),
    )
    told: list[InferenceError] = []
    said: list[str] = []
    begun = 0

    async def talk(cluster: Cluster, all_begun: trio.Event) -> None:
        nonlocal begun
        with pytest.raises(InferenceError) as caught:
            async with cluster.stream("m", "talk") as chunks:
                async for chunk in chunks:
                    assert chunk.text == "so far "
                    begun += 1
                    if begun == EACH:
                        all_begun.set()
        told.append(caught.value)

    async def ask(cluster: Cluster, text: str) -> None:
        said.append((await cluster.chat("m", text)).text)

    with trio.fail_after(WITHIN_S):
        async with Cluster.connect("inproc://app") as cluster:
            await cluster.deploy(deployment)
            async with trio.open_nursery() as nursery:
                all_begun = trio.Event()
                for _ in range(EACH):
                    nursery.start_soon(talk, cluster, all_begun)
                    nursery.start_soon(ask, cluster, "wait")
                await all_begun.wait()
                nursery.start_soon(ask, cluster, how)
    assert [type(one) for one in told] == [error] * EACH
    assert all(message in one.message for one in told), told
    assert said == ["so good"] * (EACH + 1)


async def test_a_bound_that_is_changed_counts_for_the_engine_that_runs(
    tmp_path: Path,
) -> None:
    deployment = Deployment(
        name="m",
        runtime=f"python:{DYING}:answer",
        options={"sign": str(tmp_path / "never")},
    )
    with trio.fail_after(WITHIN_S):
        async with Cluster.connect("inproc://app") as cluster:
            await cluster.deploy(deployment)
            async with cluster.stream("m", "talk") as chunks:
                assert (await anext(chunks)).text == "so far "
                [before] = await cluster.replicas("m")
                was = before.engine_pid, before.starts
                less = attrs.evolve(deployment, timeouts=Timeouts(stuck_s=1.0))
                await cluster.replace(less)
                [after] = await cluster.replicas("m")
                # None was started for it.
                assert (after.engine_pid, after.starts) == was
                with pytest.raises(EngineHungError, match="told no token for 1 s"):
                    await anext(chunks)


HELD = """
import time
from pathlib import Path

Path({begun!r}).touch()
while not Path({gate!r}).exists():
    time.sleep(0.02)


async def answer(prompt):
    yield "so far "
    while True:
        await trio.sleep(60)
"""


async def test_a_bound_that_is_changed_counts_for_the_engine_that_starts(
    tmp_path: Path,
) -> None:
    begun, gate, code = (tmp_path / name for name in ("begun", "gate", "held.py"))
    gate.touch()
    code.write_text("import trio\n" + HELD.format(begun=str(begun), gate=str(gate)))
    deployment = Deployment(name="m", runtime=f"python:{code}:answer")
    with trio.fail_after(WITHIN_S):
        async with Cluster.connect("inproc://app") as cluster:
            await cluster.deploy(deployment)
            [first] = await cluster.replicas("m")
            assert first.engine_pid is not None
            gate.unlink()
            begun.unlink()
            os.kill(first.engine_pid, signal.SIGKILL)
            while not begun.exists():  # noqa: ASYNC110  a file says it
                await trio.sleep(0.02)
            less = attrs.evolve(deployment, timeouts=Timeouts(stuck_s=1.0))
            await cluster.replace(less)
            gate.touch()
            async with cluster.stream("m", "talk") as chunks:
                assert (await anext(chunks)).text == "so far "
                [after] = await cluster.replicas("m")
                assert after.starts == 2
                with pytest.raises(EngineHungError, match="told no token for 1 s"):
                    await anext(chunks)
