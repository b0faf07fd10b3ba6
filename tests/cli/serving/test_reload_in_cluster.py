"""A reload on one node of a cluster is every node's."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr import telemetry
from atomr_infer.cli.plan import ServePlan
from atomr_infer.cli.serving.reload import Reloader
from atomr_infer.cli.serving.serve import _load
from atomr_infer.cluster import Cluster
from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.config.node import ClusterConfig, NodeConfig
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.placement import Placement
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.secret import EnvSecret
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.policy.lifecycle.hot_swap import Phase
from atomr_infer.serving.node import make_node
from atomr_infer.serving.placing.orders import Orders
from tests.serving.placing.real import NAMES, open_fleet, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from atomr_infer.serving.placing.records import Entry
    from tests.serving.placing.real import Node

M = Deployment(name="m", runtime="mock", options={"reply": "old"})
N = Deployment(name="n", runtime="mock")
PLAN = ServePlan(
    deployments=(), gateway=GatewayConfig(bind="127.0.0.1:0"), source="atomr.toml"
)


async def says_it(node: Node, text: bytes) -> None:
    """Wait until a node answers so: the news is on its way."""
    with trio.fail_after(30):
        while text not in (await node.chat(model="m")).body:  # noqa: ASYNC110 - above
            await trio.sleep(0.05)


@pytest.mark.slow
async def test_what_a_file_says_anew_is_served_by_all(tmp_path: Path) -> None:
    says = [PLAN]
    async with open_fleet(tmp_path, "a", "b") as fleet, trio.open_nursery() as nursery:
        a, b = fleet.nodes["a"], fleet.nodes["b"]
        reloader = Reloader(a.cluster, a.gateway, PLAN, lambda: says[-1], nursery)

        async def reload(*deployments: Deployment) -> list[str]:
            says.append(attrs.evolve(PLAN, deployments=deployments))
            done = await reloader.reload("test")
            assert done.refused is None
            return [difference.line for difference in done.differences]

        assert await reload(M, N) == [
            "+ deployment 'm' (mock)",
            "+ deployment 'n' (mock)",
        ]
        await until(lambda: set(b.cluster.models()) == {"m", "n"})
        await says_it(b, b"old")
        changed = attrs.evolve(M, options={"reply": "new"})
        assert await reload(changed) == [
            '~ deployment \'m\': options.reply: "old" -> "new"',
            "- deployment 'n'",
        ]
        await until(lambda: set(b.cluster.models()) == {"m"})
        await says_it(b, b"new")
        assert reloader.plan.deployments == (changed,)
        nursery.cancel_scope.cancel()


@contextmanager
def noted() -> Iterator[list[object]]:
    """Note each swap, of any node, when what comes is asked something."""
    found: list[object] = []

    def note(_: object, __: object, about: Mapping[str, object]) -> None:
        if about["phase"] == "verifying":
            found.append(about["deployment"])

    telemetry.attach("test", ("atomr_infer", "hot_swap", "phase"), note)
    try:
        yield found
    finally:
        telemetry.detach("test")


async def ask(node: Node, texts: set[str]) -> None:
    """Ask one request after the other; all are answered."""
    while True:
        answer = await node.chat(model="m")
        assert answer.status == 200, answer.body
        texts.add(answer.json["choices"][0]["message"]["content"])
        await trio.sleep(0.01)


@pytest.mark.slow
async def test_what_has_a_plan_is_swapped_once_though_all_nodes_reload(
    tmp_path: Path,
) -> None:
    old = attrs.evolve(M, placement=Placement(everywhere=True))
    plan = SwapPlan(steps=(0.5,), step_s=0.2, min_requests=0, probe=None)
    new = attrs.evolve(old, options={"reply": "new"}, hot_swap=plan)
    says, texts = [attrs.evolve(PLAN, deployments=(old,))], set[str]()
    async with open_fleet(tmp_path, "a", "b") as fleet, trio.open_nursery() as nursery:
        nodes = list(fleet.nodes.values())
        reloaders = [
            Reloader(each.cluster, each.gateway, PLAN, lambda: says[-1], nursery)
            for each in nodes
        ]
        with noted() as began:
            for reloader in reloaders:
                assert (await reloader.reload("test")).refused is None
            for node in nodes:
                await until(lambda node=node: node.runs() == {"m": 1})  # type: ignore[misc]
                nursery.start_soon(ask, node, texts)
            says.append(attrs.evolve(PLAN, deployments=(new,)))
            async with trio.open_nursery() as together:
                for reloader in reloaders:
                    together.start_soon(reloader.reload, "test")
            await until(lambda: all(map(has_swapped, nodes)))
            await reloaders[0].reload("test")
            await trio.sleep(4.0)  # longer than each waits before it begins one
        assert (began, texts) == (["m"], {"old", "new"})
        [status] = nodes[1].cluster.deployments()
        assert (status.name, status.conflicts) == ("m", ())
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_node_that_starts_with_an_old_file_undoes_nothing(
    tmp_path: Path,
) -> None:
    old = attrs.evolve(M, placement=Placement(everywhere=True))
    plan = attrs.evolve(PLAN, deployments=(old,))
    async with open_fleet(tmp_path, "a") as fleet:
        a = fleet.nodes["a"]
        with a.cluster.at_home():
            orders = a.cluster.orders
            assert isinstance(orders, Orders)
            orders.declare([old])
            newer = attrs.evolve(old, options={"reply": "newer"})
            await orders.replace(newer, wait=False)
        async with starting(tmp_path, plan, a.address):
            [status] = a.cluster.deployments()
            assert (status.name, status.revision, status.by) == ("m", 2, "a")


@pytest.mark.slow
async def test_what_is_read_at_a_start_may_be_old_and_what_is_read_again_is_meant(
    tmp_path: Path,
) -> None:
    at_start = attrs.evolve(PLAN, deployments=(M,))
    again = attrs.evolve(PLAN, deployments=(attrs.evolve(M, options={}),))
    async with open_fleet(tmp_path, "a") as fleet, trio.open_nursery() as nursery:
        a = fleet.nodes["a"]
        async with starting(tmp_path, at_start, a.address) as b:
            assert entry_of("m", b).at_start
            await until(lambda: "m" in a.cluster.models())
            reloader = Reloader(a.cluster, a.gateway, PLAN, lambda: again, nursery)
            assert (await reloader.reload("test")).refused is None
            entry = entry_of("m", a.cluster)
            assert (entry.revision, entry.at_start) == (2, False)
        nursery.cancel_scope.cancel()


def entry_of(name: str, cluster: Cluster) -> Entry:
    """Return a deployment's entry, as a node knows it."""
    assert isinstance(cluster.orders, Orders)
    with cluster.at_home():
        return cluster.orders.picture().catalogue[name].entry


@pytest.mark.slow
async def test_a_node_that_starts_in_the_middle_of_a_swap_leaves_it_alone(
    tmp_path: Path,
) -> None:
    old = attrs.evolve(M, placement=Placement(everywhere=True))
    long = SwapPlan(steps=(0.5,), step_s=600.0, patience_s=600.0, probe=None)
    new = attrs.evolve(old, options={"reply": "new"}, hot_swap=long)
    async with open_fleet(tmp_path, "a") as fleet:
        a = fleet.nodes["a"]
        with a.cluster.at_home():
            await a.cluster.deploy(old)
            swap = await a.cluster.hot_swaps.begin(new, None, None)
        await until(lambda: swap.status.phase is Phase.SHIFTING)
        before = [(each.name, each.revision) for each in a.cluster.deployments()]
        plan = attrs.evolve(PLAN, deployments=(new,))
        async with starting(tmp_path, plan, a.address) as b:
            [status] = b.hot_swaps.statuses()
            assert (status.node, status.phase) == ("a", Phase.SHIFTING)
            after = [(each.name, each.revision) for each in a.cluster.deployments()]
            assert after == before


@asynccontextmanager
async def starting(folder: Path, plan: ServePlan, seed: str) -> AsyncIterator[Cluster]:
    """Start node b with a file, as ``serve`` does, until it has what it is to have."""
    cluster = ClusterConfig(
        name="dev",
        voters=NAMES,
        cookie=EnvSecret("COOKIE"),
        ca=str(folder / "ca.pem"),
        certificate=str(folder / "b.pem"),
        private_key=str(folder / "b.key"),
        listen="127.0.0.1:0",
        seeds=(seed,),
    )
    environ = {"COOKIE": "a secret of all nodes"}
    node = make_node(NodeConfig(name="b"), cluster, environ)
    async with Cluster.connect("inproc://b", environ={}, node=node) as opened:
        with opened.at_home():
            await _load(opened, plan)
        yield opened


def has_swapped(node: Node) -> bool:
    phases = [each.phase for each in node.cluster.hot_swaps.statuses()]
    return phases == [Phase.SWAPPED]


async def test_what_the_catalogue_has_newer_and_a_changed_limit_are_told(
    tmp_path: Path,
) -> None:
    def limited(rpm: int, window_s: float = 60.0) -> Deployment:
        limits = RateLimits(requests_per_minute=rpm, window_s=window_s)
        return attrs.evolve(N, rate_limits=limits)

    says = [PLAN]
    async with open_fleet(tmp_path, "a") as fleet, trio.open_nursery() as nursery:
        a = fleet.nodes["a"]
        reloader = Reloader(a.cluster, a.gateway, PLAN, lambda: says[-1], nursery)

        async def reload(*deployments: Deployment) -> tuple[str, ...]:
            says.append(attrs.evolve(PLAN, deployments=deployments))
            done = await reloader.reload("test")
            assert done.refused is None
            return done.notes

        await reload(M, limited(60))
        with a.cluster.at_home():
            newer = attrs.evolve(M, options={"reply": "newer"})
            await a.cluster.orders.replace(newer, wait=False)
        stays = (
            "m stays as revision 2 has it, from a: what this node's file says is older"
        )
        assert await reload(M, limited(30)) == (stays, "n is changed, as revision 2")
        assert await reload(M, limited(30, window_s=30.0)) == (
            stays,
            "n is changed, as revision 3",
            "the rate limit of deployment 'n' is another one: for 60 s most of it is "
            "withheld, as what the nodes have used of the old one counts",
        )
        nursery.cancel_scope.cancel()


async def test_one_that_no_node_can_run_changes_nothing(tmp_path: Path) -> None:
    wrong = Deployment(name="x", runtime="nobodys")
    async with open_fleet(tmp_path, "a") as fleet, trio.open_nursery() as nursery:
        a = fleet.nodes["a"]
        says = [attrs.evolve(PLAN, deployments=(M, wrong))]
        reloader = Reloader(a.cluster, a.gateway, PLAN, lambda: says[-1], nursery)
        done = await reloader.reload("test")
        assert done.refused is not None
        assert "nobodys" in done.refused
        assert a.cluster.models() == ()
        assert reloader.plan is PLAN
        nursery.cancel_scope.cancel()
