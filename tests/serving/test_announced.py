"""Rate limits that one node has, and those who keep them without having them."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr.cluster.permits import FIRST, Limit, Permits
from atomr_infer.config.node import ClusterConfig, NodeConfig
from atomr_infer.errors import RateLimitedError
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

    from atomr_infer.serving.limits.limiter import RateGate
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


@asynccontextmanager
async def life(
    folder: Path, *, limits: RateLimits, name: str = "key k"
) -> AsyncIterator[RateGate]:
    """One life of a node that has no others, and a gate of it."""
    node = make_node(NodeConfig(name="a", state_dir=str(folder)), None, {})
    async with open_serving(environ={}, node=node) as serving:
        gate = serving.limits.gate_of(name, limits, longest_s=60.0)
        await trio.lowlevel.checkpoint()
        yield gate


def entered(gate: RateGate, *, tries: int) -> int:
    """Return how many of so many requests are let through now."""
    found = 0
    for _ in range(tries):
        with suppress(RateLimitedError):
            found += gate.try_enter(Demand(deployment="m", model="m")) is not None
    return found


LIMITED = RateLimits(requests_per_minute=5, on_exceeded=OnLimit.REJECT)


async def test_what_a_life_used_that_ended_in_order_is_used_and_no_more(
    tmp_path: Path,
) -> None:
    async with life(tmp_path, limits=LIMITED) as gate:
        assert entered(gate, tries=2) == 2
    async with life(tmp_path, limits=LIMITED) as gate:
        assert entered(gate, tries=1) == 1
    async with life(tmp_path, limits=LIMITED) as gate:
        assert entered(gate, tries=5) == 2
    more = attrs.evolve(LIMITED, requests_per_minute=7)
    async with life(tmp_path, limits=more) as gate:
        assert entered(gate, tries=7) == 2


async def test_of_a_life_that_was_killed_all_is_used(tmp_path: Path) -> None:
    async with life(tmp_path, limits=LIMITED) as gate:
        assert entered(gate, tries=1) == 1
    async with life(tmp_path, limits=LIMITED) as gate:
        assert entered(gate, tries=1) == 1
        killed = (tmp_path / "alive").read_bytes()
    (tmp_path / "alive").write_bytes(killed)
    async with life(tmp_path, limits=LIMITED) as gate:
        assert entered(gate, tries=1) == 0


async def test_what_the_last_life_did_not_count_is_not_known(tmp_path: Path) -> None:
    async with life(tmp_path, limits=LIMITED) as gate:
        assert entered(gate, tries=5) == 5
    async with life(tmp_path, limits=LIMITED, name="another") as gate:
        assert entered(gate, tries=1) == 0
    async with life(tmp_path, limits=LIMITED) as gate:
        assert entered(gate, tries=1) == 0


async def test_what_was_counted_for_a_shorter_time_is_not_known(tmp_path: Path) -> None:
    shorter = attrs.evolve(LIMITED, requests_per_minute=10, window_s=30.0)
    async with life(tmp_path, limits=shorter) as gate:
        assert entered(gate, tries=1) == 1
    async with life(tmp_path, limits=LIMITED) as gate:
        assert entered(gate, tries=1) == 0
