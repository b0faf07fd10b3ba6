"""What a node of a cluster shows of the others, of limits, and of what differs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer.cluster import Cluster
from atomr_infer.model.budget import Budget, OwnedBudget, Per
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.placement import Placement
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.secret import Secret
from atomr_infer.model.team import Team
from atomr_infer.serving.limits import budget_gate, budgets
from tests.atomr.http2.conftest import Authority
from tests.gateway.http import chat
from tests.gateway.test_admin_everywhere import KEY, admin, node_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

WITHIN_S = 30.0
LIMITED = Deployment(
    name="m",
    runtime="mock",
    rate_limits=RateLimits(requests_per_minute=7),
    placement=Placement(everywhere=False),
)
BUDGETED = Deployment(
    name="m",
    runtime="mock",
    budget=(Budget(per=Per.MONTH, tokens=10_000),),
    placement=Placement(everywhere=True),
)


class Two:
    """Two nodes of a cluster, a and b, with the operators' routes of a."""

    def __init__(self, a: Cluster, b: Cluster, port: int) -> None:
        self.a, self.b, self._port = a, b, port

    async def shown(self, path: str = "status") -> Any:
        return (await admin(self._port, "GET", f"/admin/{path}")).json

    async def until(self, holds: Callable[[Any], bool]) -> Any:
        """What a shows, once that holds: the news is on its way."""
        with trio.fail_after(WITHIN_S):
            while not holds(shown := await self.shown()):  # noqa: ASYNC110 - above
                await trio.sleep(0.05)
        return shown


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[Two]:
    authority = Authority(folder)
    first = node_of(authority, "a")
    async with Cluster.connect("inproc://a", environ={}, node=first) as a:
        gateway = await a.serve("127.0.0.1:0", admin_key=Secret(KEY))
        second = node_of(authority, "b", a.address)
        async with Cluster.connect("inproc://b", environ={}, node=second) as b:
            assert first.cluster is not None
            with a.at_home():
                await first.cluster.wait_for(2, timeout_s=20)
            yield Two(a, b, int(gateway.url.rpartition(":")[2]))


def take(cluster: Cluster, rpm: int, usd: str) -> None:
    limits = RateLimits(requests_per_minute=rpm)
    with cluster.at_home():
        cluster.key_ring.take_teams([Team(name="web", rate_limits=limits)])
        budget = OwnedBudget(budget=Budget(per=Per.DAY, usd=usd), team="web")
        cluster.budgets.take([budget])


async def test_what_the_files_of_two_nodes_say_differently_is_a_problem(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as nodes:
        take(nodes.b, 50, "20")
        # A node that was told of no file differs from nobody.
        shown = await nodes.shown()
        assert (shown["problems"], shown["away"]) == ([], [])
        take(nodes.a, 60, "10")
        # What a file says is compared once all of it is there.
        shown = await nodes.until(lambda shown: bool(shown["problems"]))
        assert shown["problems"] == [
            'budget of team web, usd/day: budget.usd is "10" here, and "20" on b',
            "team web: rate_limits.requests_per_minute is 60 here, and 50 on b",
        ]
        take(nodes.b, 60, "10")
        shown = await nodes.until(lambda shown: not shown["problems"])
        [limit], [budget] = shown["limits"], shown["budgets"]
        assert (limit["name"], limit["limit"]) == ("team web", 60)
        assert (budget["name"], budget["spent"]) == ("team web", 0)


async def test_a_node_without_the_replica_shows_its_limit(tmp_path: Path) -> None:
    async with two(tmp_path) as nodes:
        await nodes.b.deploy(LIMITED)
        shown = await nodes.until(lambda shown: bool(shown["limits"]))
        [limit] = shown["limits"]
        if limit["nodes"]:  # else the replica is on this one
            assert limit["nodes"] == ["b"]
            assert limit["name"].startswith("mock no key m")
        told = limit["counts"], limit["limit"], limit["window_s"]
        assert told == ("requests_per_minute", 7, 60.0)
        limits = (await nodes.shown("limits"))["limits"]
        assert [each["limit"] for each in limits] == [7]


async def test_a_node_that_left_is_shown_with_its_time(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first = node_of(authority, "a")
    async with Cluster.connect("inproc://a", environ={}, node=first) as a:
        gateway = await a.serve("127.0.0.1:0", admin_key=Secret(KEY))
        nodes = Two(a, a, int(gateway.url.rpartition(":")[2]))
        [away] = (await nodes.shown())["away"]
        assert away["why"] == "it has not been seen since this node started"
        second = node_of(authority, "b", a.address)
        async with Cluster.connect("inproc://b", environ={}, node=second):
            await nodes.until(lambda shown: not shown["away"])
        shown = await nodes.until(lambda shown: bool(shown["away"]))
        [away] = shown["away"]
        assert (away["name"], away["why"]) == ("b", "it has left")
        usage = await nodes.shown("usage/deployment/0")
        assert usage["missing"] == {"b": "it has left"}
        assert usage["away_since_s"] == {"b": away["since_s"]}


async def test_a_request_at_the_start_waits_for_a_voter_that_is_starting_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_gate, "ASK_S", 0.01)  # is over before b is there
    authority = Authority(tmp_path)
    first = node_of(authority, "a")
    async with Cluster.connect("inproc://a", environ={}, node=first) as a:
        gateway = await a.serve("127.0.0.1:0")
        port = int(gateway.url.rpartition(":")[2])
        await a.deploy(BUDGETED)
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await chat(port, model="m", max_tokens=5)).status)

        second = node_of(authority, "b", a.address)
        with trio.fail_after(WITHIN_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                async with Cluster.connect("inproc://b", environ={}, node=second):
                    while not statuses:  # noqa: ASYNC110 - above
                        await trio.sleep(0.02)
        assert statuses == [200]


@pytest.mark.slow
async def test_what_a_budget_waits_for_is_named_and_no_problem_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    awaited = "a has a new file, and waits for b to say that it had none before"
    first = node_of(Authority(tmp_path), "a")
    async with Cluster.connect("inproc://a", environ={}, node=first) as a:
        gateway = await a.serve("127.0.0.1:0", admin_key=Secret(KEY))
        port = int(gateway.url.rpartition(":")[2])
        nodes = Two(a, a, port)
        monkeypatch.setattr(budget_gate, "SETTLES_S", 0.0)
        await a.deploy(BUDGETED)
        shown = await nodes.shown()
        assert (shown["problems"], shown["budgets"][0]["problem"]) == ([], None)
        refused = await chat(port, model="m", max_tokens=5)
        assert refused.status == 503
        assert awaited in refused.json["error"]["message"]
        monkeypatch.setattr(budgets, "SETTLES_S", 0.0)
        shown = await nodes.shown()
        assert shown["budgets"][0]["problem"] == awaited
        assert shown["problems"] == [
            f"budget of deployment m, 10,000 tokens per month: {awaited}"
        ]
