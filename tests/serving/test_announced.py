"""Rate limits that one node has, and those who keep them without having them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from atomr.cluster.permits import FIRST, Limit, Permits
from atomr_infer.config.node import ClusterConfig, NodeConfig
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.rate_limits import OnLimit, RateLimits
from atomr_infer.model.secret import EnvSecret
from atomr_infer.policy.limits.demand import Demand
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.node import make_node
from tests.atomr.http2.conftest import CLUSTER, Authority
from tests.gateway.http import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from atomr_infer.serving.shared import Serving
    from tests.serving.conftest import OpenTree

COOKIE = {"COOKIE": "a secret of all nodes"}


@asynccontextmanager
async def two_trees(
    folder: Path, voters: tuple[str, ...] = ("a", "b")
) -> AsyncIterator[tuple[Serving, Serving]]:
    """Two nodes with nothing deployed, that know each other."""
    authority = Authority(folder)

    def config(name: str, seed: str | None) -> ClusterConfig:
        files = authority.files(name)
        return ClusterConfig(
            name=CLUSTER,
            voters=voters,
            cookie=EnvSecret("COOKIE"),
            ca=str(files.ca),
            certificate=str(files.certificate),
            private_key=str(files.key),
            listen="127.0.0.1:0",
            seeds=() if seed is None else (seed,),
        )

    first = make_node(NodeConfig(name="a"), config("a", None), COOKIE)
    async with open_serving(environ={}, node=first) as a:
        assert first.cluster is not None
        address = first.cluster.address
        second = make_node(NodeConfig(name="b"), config("b", address), COOKIE)
        async with open_serving(environ={}, node=second) as b:
            assert second.cluster is not None
            await second.cluster.wait_for(2, timeout_s=20)
            yield a, b


@pytest.mark.parametrize("name", ["x", "y", "z", "u", "v"])
async def test_a_home_lends_of_a_limit_that_only_another_node_uses(
    tmp_path: Path, name: str
) -> None:
    limit = Limit(name, 100, 60.0, voters=("a", "b"))
    async with two_trees(tmp_path) as (a, b):
        user, home = (b, a) if limit.home == "a" else (a, b)
        # As if both had been off for long: neither remembers anything.
        home.limits.announced.past = user.limits.announced.past = FIRST
        user.limits.announced.use(limit)
        await until(lambda: home.limits.service.limit(name) == limit)
        service = user.limits.service
        with trio.fail_after(20):
            found = None
            while not isinstance(found, Permits):
                at_s = trio.current_time() + 2
                found = await service.acquire(name, 90, deadline_s=at_s)
        user.limits.announced.leave(name)
        await until(lambda: name not in home.limits.announced.followed)
        assert home.limits.service.limit(name) == limit  # its uses count for a minute


async def test_a_deployment_that_comes_again_has_its_limits_uses_still(
    open_tree: OpenTree, autojump_clock: object
) -> None:
    limits = RateLimits(requests_per_minute=2, on_exceeded=OnLimit.REJECT)
    deployment = Deployment(name="m", runtime="lab", rate_limits=limits)
    async with open_tree(deployment) as tree:
        await tree.ask()
        await tree.serving.undeploy("m")
        await tree.serving.deploy(deployment)
        await tree.ask()
        with pytest.raises(Exception, match="the rate limit of lab"):
            await tree.ask()
        await tree.serving.undeploy("m")
        await trio.sleep(120)
        assert tree.serving.limits.service.limits == ()
        await tree.serving.deploy(deployment)
        await tree.ask()


async def test_a_node_that_is_no_voter_borrows_of_the_only_one(tmp_path: Path) -> None:
    limits = RateLimits(requests_per_minute=40)
    async with two_trees(tmp_path, ("a",)) as (a, b):
        for tree in (a, b):
            tree.limits.gate_of("x", limits, longest_s=60.0, is_new=True)
        got = await b.limits.service.acquire(
            "x requests_per_minute", 30, deadline_s=trio.current_time() + 10.0
        )
    assert isinstance(got, Permits)


async def test_what_a_dead_process_had_under_way_is_free_for_the_next_one(
    tmp_path: Path,
) -> None:
    limits = RateLimits(max_concurrent=2, on_exceeded=OnLimit.REJECT)
    config = NodeConfig(name="a", state_dir=str(tmp_path))
    for _ in range(2):
        node = make_node(config, None, {})
        async with open_serving(environ={}, node=node) as serving:
            gate = serving.limits.gate_of("key k", limits, longest_s=900.0)
            await trio.lowlevel.checkpoint()
            demand = Demand(deployment="m", model="m")
            assert [gate.try_enter(demand) is None for _ in range(3)] == [
                False,
                False,
                True,
            ]
