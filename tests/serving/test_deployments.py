"""Deployments come and go at awkward moments, and with awkward plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr.otp import call, which_children
from atomr.process import kill, wait_exit, whereis
from atomr_infer.errors import (
    EngineCrashedError,
    NotReadyError,
    PluginError,
)
from atomr_infer.model.deployment import Deployment
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.deployments.sources import Sources
from atomr_infer.serving.names import DEPLOYMENTS, MANAGER, coordinator_name
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.routing_table import RoutingTable
from atomr_infer.serving.requests.elsewhere import forget, know
from atomr_infer.testing.mock_script import MockScript
from tests.serving.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.metadata import Distribution

    from trio.testing import MockClock

    from atomr.refs import Pid
    from atomr_infer.serving.replicas.replica import ReplicaState
    from tests.serving.conftest import OpenTree, Tree

M = Deployment(name="m", runtime="lab")
OTHER = Deployment(name="other", runtime="mock")


async def tree_of(name: str) -> Pid:
    (child,) = [c for c in await which_children(DEPLOYMENTS) if c.id == name]
    assert child.pid is not None
    return child.pid


async def until_killed(pid: Pid | None) -> None:
    assert pid is not None
    kill(pid)
    await wait_exit(pid)
    await trio.testing.wait_all_tasks_blocked()


async def until_given_up(tree: Tree) -> None:
    """Kill the coordinator until its supervisor has had enough."""
    while tree.serving.readiness().phases["m"] != "failed":
        pid = whereis(coordinator_name("m"))
        if pid is not None:
            await until_killed(pid)


async def test_a_name_that_is_deployed_while_it_is_undeployed_keeps_its_tree(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        tree.lab.close_s = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.serving.undeploy, "m")
            await trio.sleep(0.1)
            nursery.start_soon(tree.serving.deploy, M)
        assert (await tree.ask()).texts == ["one", " two"]
        assert tree.serving.readiness().phases == {"m": "serving"}
        assert await tree.serving.undeploy("m")
        assert await which_children(DEPLOYMENTS) == ()


async def test_a_deployment_that_gave_up_can_be_removed_and_deployed_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        await until_given_up(tree)
        assert await tree.serving.undeploy("m")
        assert tree.serving.table.names() == ()
        await tree.serving.deploy(M)
        assert (await tree.ask()).texts == ["one", " two"]


async def test_clients_learn_the_engines_last_error_and_nothing_of_the_tree(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        replica = await tree.replica()
        tree.lab.runners[0].fail(EngineCrashedError("killed by SIGKILL (9)"))
        await until(lambda: replica.starts == 2)
        await until_given_up(tree)
        with pytest.raises(NotReadyError) as caught:
            await tree.ask()
    told = "m has failed: killed by SIGKILL (9); see the log"
    assert caught.value.message == told


async def test_a_plugins_bug_is_a_refusal_and_not_the_managers_end(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(OTHER) as tree:
        manager = whereis(MANAGER)
        tree.lab.refusal = KeyError("oops")
        with pytest.raises(PluginError) as caught:
            await tree.serving.deploy(M)
        assert str(caught.value) == (
            "runtime 'lab' failed while it checked 'm': KeyError: 'oops'"
        )
        assert caught.value.__cause__ is tree.lab.refusal
        assert whereis(MANAGER) is manager
        assert tree.serving.table.names() == ("other",)


async def test_undeploying_a_tree_that_ends_by_itself_spares_the_manager(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M, OTHER) as tree:
        manager, doomed = whereis(MANAGER), await tree_of("other")
        tree.lab.close_s = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.serving.undeploy, "m")
            await trio.sleep(0.1)
            # Both wait for the manager, and the request is the first of them.
            nursery.start_soon(tree.serving.undeploy, "other")
            await trio.sleep(0.1)
            kill(doomed)
        assert whereis(MANAGER) is manager
        assert tree.serving.table.names() == ()


async def test_a_new_manager_fails_a_deployment_that_has_no_tree(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(OTHER) as tree:
        # As a manager leaves it that ends in the middle of a deploy.
        table = tree.serving.table.with_deployment(M)
        tree.serving.publish(table, RoutingTable("m"))
        await until_killed(whereis(MANAGER))
        phases = tree.serving.readiness().phases
        assert phases == {"other": "serving", "m": "failed"}
        with pytest.raises(NotReadyError, match="m has failed; see the log"):
            await tree.ask()


async def test_a_manager_that_dies_in_an_undeploy_leaves_no_tree_behind(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        tree.serving.publish(tree.serving.table.without("m"))
        await until_killed(whereis(MANAGER))
        await tree.serving.deploy(M)
        assert (await tree.ask()).texts == ["one", " two"]
        assert (tree.lab.opened, tree.lab.closed) == (2, 1)


async def test_undeploying_one_deployment_spares_another_of_its_name(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M) as tree:
        earlier = Deployment(name="m", runtime="lab")
        request = messages.Undeploy("m", only=earlier)
        assert not await call(MANAGER, request)
        assert (await tree.ask()).texts == ["one", " two"]


# --- a deploy that does not come to its end ---------------------------------------


SLOW = MockScript(load_s=30)


async def nothing_is_left(tree: Tree) -> bool:
    return tree.serving.table.names() == () == await which_children(DEPLOYMENTS)


async def test_a_deploy_whose_coordinator_dies_leaves_nothing(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [SLOW]

        async def refused() -> None:
            with pytest.raises(NotReadyError, match="m was stopped before it served"):
                await tree.serving.deploy(M)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused)
            await trio.sleep(0.1)
            await until_killed(whereis(coordinator_name("m")))
        assert await nothing_is_left(tree)


async def test_a_deploy_whose_manager_dies_leaves_nothing(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(OTHER) as tree:

        async def refused() -> None:
            with pytest.raises(NotReadyError, match="m was stopped before it served"):
                await tree.serving.deploy(M)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused)
            while whereis(coordinator_name("m")) is None:
                await trio.lowlevel.checkpoint()
            await until_killed(whereis(MANAGER))
        assert tree.serving.table.names() == ("other",)
        assert [c.id for c in await which_children(DEPLOYMENTS)] == ["other"]


async def test_a_deploy_that_waits_for_a_busy_manager_is_not_given_up(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(M, OTHER) as tree:
        tree.lab.close_s = 19
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.serving.undeploy, "m")
            await trio.sleep(0.1)
            nursery.start_soon(tree.serving.deploy, M)
        assert (await tree.ask()).texts == ["one", " two"]


@pytest.mark.parametrize("after_s", [0.0, 0.3])
async def test_a_cancelled_deploy_leaves_nothing(
    open_tree: OpenTree, autojump_clock: MockClock, after_s: float
) -> None:
    async with open_tree() as tree:
        tree.lab.plan = [SLOW]
        with trio.move_on_after(after_s) as scope:
            await tree.serving.deploy(M)
        assert scope.cancelled_caught
        assert await nothing_is_left(tree)


async def test_a_deploy_whose_progress_raises_leaves_nothing(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    def progress(_: ReplicaState) -> None:
        raise ZeroDivisionError

    async with open_tree() as tree:
        tree.lab.plan = [SLOW]
        with pytest.raises(ZeroDivisionError):
            await tree.serving.deploy(M, progress=progress)
        assert await nothing_is_left(tree)


@pytest.mark.parametrize("after_s", [0.0, 0.3])
async def test_cancelling_around_the_tree_while_it_loads_is_a_cancellation(
    open_tree: OpenTree, autojump_clock: MockClock, after_s: float
) -> None:
    with trio.move_on_after(1) as scope:
        async with open_tree() as tree:
            tree.lab.plan = [SLOW]
            scope.deadline = trio.current_time() + after_s
            await tree.serving.deploy(M)
    assert scope.cancelled_caught


async def test_what_deployments_of_other_nodes_ask_for_is_forgotten_with_them(
    lab_installed: Callable[[], Iterator[Distribution]],
) -> None:
    async with open_serving(environ={}, installed=lab_installed) as serving:
        sources = Sources({}, lab_installed, serving)
        serving.asks_of = sources.asked_elsewhere
        know(serving, Deployment(name="stays", runtime="lab"), ())
        for number in range(9):
            know(serving, Deployment(name=f"m{number}", runtime="lab"), ())
            forget(serving, f"m{number}")
        know(serving, Deployment(name="last", runtime="lab"), ())
        assert sources._asks.keys() == {"stays", "last"}
