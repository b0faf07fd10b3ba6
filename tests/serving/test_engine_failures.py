"""What a request, a queue and a deployment see when an engine fails."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr.otp import SHUTDOWN, which_children
from atomr.process import exit_process
from atomr_infer.errors import (
    EngineCrashedError,
    EngineStartError,
    NotReadyError,
)
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.serving.deployments.deploying import keeps_all
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.replicas.replica import Phase
from atomr_infer.testing.mock_script import MockScript
from tests.serving.conftest import Collected, OpenTree, Tree, until

if TYPE_CHECKING:
    from trio.testing import MockClock

M = Deployment(name="m", runtime="lab")
CRASH = EngineCrashedError("killed by SIGKILL (9)")


async def until_starts(tree: Tree, starts: int) -> None:
    replica = await tree.replica()
    await until(lambda: replica.starts >= starts)


async def test_an_engine_that_dies_idle_is_restarted_and_the_log_says_both(
    open_tree: OpenTree, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "atomr_infer.serving")
    async with open_tree(M) as tree:
        assert "the engine is back" not in caplog.text
        tree.lab.runners[0].fail(CRASH)
        await until_starts(tree, 2)
        answer = await tree.ask()
        assert answer.texts == ["one", " two"]
        assert len(answer.served[0].attempts) == 1
    assert (tree.lab.opened, tree.lab.closed) == (2, 2)
    assert "m/0: the engine is gone (killed by SIGKILL (9)); it restarts" in caplog.text
    assert "m/0: the engine is back" in caplog.text


async def test_a_request_after_the_crash_waits_for_the_new_engine(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        tree.lab.runners[0].fail(CRASH)
        while (await tree.replica()).phase is not Phase.RESTARTING:
            await trio.lowlevel.checkpoint()
        assert (await tree.ask()).texts == ["one", " two"]


async def test_a_request_waits_while_the_failed_engine_is_closed(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.close_s = 5.0
        await tree.serving.deploy(M)
        tree.lab.runners[0].fail(CRASH)
        while (await tree.replica()).phase is not Phase.RESTARTING:
            await trio.lowlevel.checkpoint()
        assert tree.lab.opened == 1
        asked_at = trio.current_time()
        answer = await tree.ask()
        assert answer.texts == ["one", " two"]
        assert len(answer.served[0].attempts) == 1
        assert trio.current_time() - asked_at >= 4.0
        tree.lab.close_s = 0.0


async def test_a_stream_that_has_begun_ends_with_the_engines_error(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(hang_after=1)]
        await tree.serving.deploy(M)
        sink = Collected()
        async with trio.open_nursery() as nursery:

            async def crash() -> None:
                while not sink.texts:
                    await trio.lowlevel.checkpoint()
                tree.lab.runners[0].fail(CRASH)

            nursery.start_soon(crash)
            with pytest.raises(EngineCrashedError, match=r"SIGKILL \(9\)"):
                await tree.ask(sink=sink)
        assert sink.texts == ["one"]
        assert (await tree.ask()).texts == ["one", " two"]
        await tree.idle()


async def test_a_request_without_content_is_replayed_on_the_new_engine(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(hang_after=0)]
        await tree.serving.deploy(M)
        answer = Collected()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                await tree.ask(sink=answer)

            nursery.start_soon(ask)
            await trio.sleep(0.1)
            tree.lab.runners[0].fail(CRASH)
        assert answer.texts == ["one", " two"]
        assert len(answer.served[0].attempts) == 2


async def test_a_request_that_must_not_repeat_gets_the_error(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    once = Deployment(name="m", runtime="lab", retry=RetryPolicy(idempotent=False))
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(hang_after=0)]
        await tree.serving.deploy(once)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(EngineCrashedError):
                    await tree.ask()

            nursery.start_soon(ask)
            await trio.sleep(0.1)
            tree.lab.runners[0].fail(CRASH)


async def test_waiting_requests_survive_their_engine(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    one = Deployment(name="m", runtime="lab", serving=Serving(max_concurrency=1))
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(hang_after=1)]
        await tree.serving.deploy(one)
        answers: list[Collected] = []
        async with trio.open_nursery() as nursery:

            async def hang() -> None:
                with pytest.raises(EngineCrashedError):
                    await tree.ask()

            async def wait() -> None:
                answers.append(await tree.ask())

            nursery.start_soon(hang)
            await trio.sleep(0.1)
            for _ in range(5):
                nursery.start_soon(wait)
            await trio.sleep(0.1)
            assert (await tree.replica()).waiting == 5
            tree.lab.runners[0].fail(CRASH)
        assert [len(answer.served[0].attempts) for answer in answers] == [1] * 5


async def test_an_engine_that_keeps_dying_leaves_the_table_and_says_why(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    healthy = Deployment(name="other", runtime="mock")
    async with open_tree(M, healthy) as tree:
        for starts in range(1, 7):
            await until_starts(tree, starts)
            tree.lab.runners[-1].fail(CRASH)
            if starts < 6:
                await until_starts(tree, starts + 1)
        await until(lambda: tree.serving.readiness().phases["m"] == "failed")
        with pytest.raises(EngineCrashedError, match="SIGKILL"):
            await tree.ask()
        readiness = tree.serving.readiness()
        assert (readiness.ready, readiness.not_ready) == (True, ("m",))
        assert (await tree.ask(model="other")).texts == ["one", " two"]
        assert await tree.serving.undeploy("m")
        await tree.serving.deploy(M)
        assert (await tree.ask()).texts == ["one", " two"]


async def test_an_engine_that_starts_anew_does_not_take_the_node_from_the_others(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    healthy = Deployment(name="other", runtime="mock")
    for others, is_ready in (((healthy,), True), ((), False)):
        async with open_tree(M, *others) as tree:
            await until_starts(tree, 1)
            assert tree.serving.readiness().not_ready == ()
            tree.lab.runners[-1].fail(CRASH)
            await until(lambda: tree.serving.readiness().phases["m"] == "restarting")
            readiness = tree.serving.readiness()
            assert (readiness.ready, readiness.not_ready) == (is_ready, ("m",))
            # One that still loads what it was started with waits for all of it.
            tree.serving.node.is_starting = True
            assert not tree.serving.readiness().ready
            tree.serving.node.is_starting = False
            await until_starts(tree, 2)
            assert tree.serving.readiness().not_ready == ()


SLOW = MockScript(load_s=40.0)
"""Three of its starts take as long as the window of five restarts."""


async def until_slowly_started(tree: Tree, starts: int) -> None:
    replica = await tree.replica()
    await until(lambda: replica.starts >= starts, within_s=90.0, every_s=0.1)


async def die(tree: Tree, starts: int) -> None:
    """Have an engine die that has been started so often, a while after that."""
    await until_slowly_started(tree, starts)
    await trio.sleep(1)
    tree.lab.runners[-1].fail(CRASH)


@pytest.mark.parametrize("is_asked", [False, True])
async def test_slow_starts_that_come_to_nothing_end_the_replica_as_fast_ones_do(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    is_asked: bool,
) -> None:
    async with open_tree() as tree, trio.open_nursery() as nursery:
        script = MockScript(load_s=40.0, hang_after=0) if is_asked else SLOW
        tree.lab.plan = [script] * 20
        await tree.serving.deploy(attrs.evolve(M, retry=RetryPolicy(max_attempts=1)))

        async def ask() -> None:
            with contextlib.suppress(EngineCrashedError, NotReadyError):
                await tree.ask()

        for starts in range(1, 7):
            assert tree.serving.replicas("m") != ()
            if is_asked:
                nursery.start_soon(ask)
            await die(tree, starts)
        await until(lambda: tree.serving.readiness().phases["m"] == "failed")
        assert tree.serving.replicas("m") == ()
        with pytest.raises(EngineCrashedError, match="SIGKILL"):
            await tree.ask()
        await trio.sleep(600)
        assert (tree.lab.opened, tree.lab.closed) == (6, 6)
    assert "6 starts in a row ended before anybody was answered" in caplog.text
    assert "m/0 left the routing table: killed by SIGKILL (9)" in caplog.text


async def test_slow_starts_that_fail_end_the_replica_as_fast_ones_do(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        assert (await tree.ask()).texts == ["one", " two"]
        tree.lab.failing_s = 60.0
        tree.lab.plan = [EngineCrashedError("died while loading")] * 20
        tree.lab.runners[0].fail(CRASH)
        await trio.sleep(6 * 60 + 30)
        assert tree.serving.readiness().phases["m"] == "failed"
        assert tree.serving.replicas("m") == ()
        # The one that had answered does not count.
        assert len(tree.lab.plan) == 20 - 6
        tree.lab.plan.clear()


@pytest.mark.parametrize("how", ["asked", "probed", "idle for long"])
async def test_an_engine_that_was_well_between_its_deaths_is_started_each_time(
    open_tree: OpenTree, autojump_clock: MockClock, how: str
) -> None:
    probe_s = 0.5 if how == "probed" else None
    probed = attrs.evolve(M, serving=Serving(probe_s=probe_s))
    async with open_tree() as tree:
        tree.lab.plan = [SLOW] * 20
        await tree.serving.deploy(probed)
        for starts in range(1, 13):
            await until_slowly_started(tree, starts)
            if how == "asked":
                assert (await tree.ask()).texts == ["one", " two"]
            elif how == "idle for long":
                await trio.sleep(120)
            await die(tree, starts)
        await die(tree, 13)


async def test_one_replica_that_keeps_dying_does_not_take_the_other_along(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    two = Deployment(name="m", runtime="lab", serving=Serving(replicas=2))
    async with open_tree(two) as tree:
        first = await tree.replica(0)
        survivor = await tree.replica(1)
        assert (first.number, survivor.number) == (0, 1)
        doomed = tree.lab.runners[0]

        def reopened(before: int) -> bool:
            return tree.lab.opened > before

        for _ in range(6):
            before = tree.lab.opened
            doomed.fail(CRASH)
            with contextlib.suppress(trio.TooSlowError):
                await until(partial(reopened, before))
            doomed = tree.lab.runners[-1]
        assert [r.number for r in tree.serving.replicas("m")] == [1]
        assert tree.serving.readiness().ready
        assert (await tree.ask()).texts == ["one", " two"]


async def test_a_deployment_that_cannot_start_says_so_and_leaves_nothing(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [EngineStartError("no such file: x.gguf")]
        with pytest.raises(EngineStartError, match=r"no such file: x\.gguf"):
            await tree.serving.deploy(M)
        assert tree.serving.table.names() == ()
        await tree.serving.deploy(M)
        assert (await tree.ask()).texts == ["one", " two"]


async def test_a_restart_that_fails_for_a_moment_is_tried_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        tree.lab.plan = [EngineCrashedError("died while loading")] * 2
        tree.lab.runners[0].fail(CRASH)
        await until_starts(tree, 2)
        assert (await tree.ask()).texts == ["one", " two"]


async def test_a_restart_that_cannot_work_fails_the_replica_until_it_can(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        tree.lab.plan = [EngineStartError("the weights are gone")]
        tree.lab.runners[0].fail(CRASH)
        replica = await tree.replica()
        await until(lambda: replica.phase is Phase.FAILED)
        with pytest.raises(EngineStartError, match="the weights are gone"):
            await tree.ask()
        await trio.sleep(5)
        await until_starts(tree, 2)
        assert (await tree.ask()).texts == ["one", " two"]


async def test_one_that_stays_though_it_cannot_start_is_tried_again_later_and_later(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    other = Deployment(name="other", runtime="lab")
    async with open_tree(other) as tree:
        missing = EngineStartError("no such file: x.gguf")
        tree.lab.plan = [missing] * 3
        with pytest.raises(EngineStartError, match=r"no such file: x\.gguf"):
            await tree.serving.deploy(M, keeps=keeps_all)
        began, opened = trio.current_time(), tree.lab.opened
        with pytest.raises(EngineStartError, match=r"no such file: x\.gguf"):
            await tree.ask()
        # It keeps the node from serving the others as little as it can.
        readiness = tree.serving.readiness()
        assert readiness.ready
        assert readiness.phases == {"other": "serving", "m": "failed"}
        await until(lambda: tree.serving.readiness().phases["m"] == "serving")
        assert 5 + 10 + 20 <= trio.current_time() - began < 36
        assert tree.lab.opened == opened + 1
        assert (await tree.ask()).texts == ["one", " two"]


async def test_one_that_is_tried_again_is_removed_and_replaced_as_any_other(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [EngineStartError("no such file")]
        with pytest.raises(EngineStartError):
            await tree.serving.deploy(M, keeps=keeps_all)
        mended = attrs.evolve(M, model="mended")
        with trio.fail_after(4):
            await tree.serving.replace(mended)
        assert (await tree.ask()).texts == ["one", " two"]
        await trio.sleep(600)
        assert tree.lab.opened == 1
        assert await tree.serving.undeploy("m")
    assert tree.lab.closed == 1


async def test_a_killed_request_frees_its_place(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [MockScript(hang_after=1)]
        await tree.serving.deploy(M)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(NotReadyError, match="shutting down"):
                    await tree.ask()

            nursery.start_soon(ask)
            await trio.sleep(0.1)
            (child,) = await which_children(REQUESTS)
            assert child.pid is not None
            exit_process(child.pid, SHUTDOWN)
        await tree.idle()
        assert tree.lab.runners[0].active == 0
