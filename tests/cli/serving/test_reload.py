"""A changed configuration becomes that of a server that runs, whole or not at all."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr import telemetry
from atomr.process import kill
from atomr_infer.cli.plan import ServePlan, plan_serving
from atomr_infer.cli.serving.missing_files import missing_models, missing_to_load
from atomr_infer.cli.serving.reload import Reloader, differences
from atomr_infer.cluster import Cluster
from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.config.node import ClusterConfig, NodeConfig
from atomr_infer.errors import ConfigError
from atomr_infer.gateway.gateway import Gateway
from atomr_infer.model.budget import Budget, OwnedBudget, Per
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.secret import EnvSecret, Secret
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.model.team import Team
from atomr_infer.policy.lifecycle.hot_swap import Phase
from atomr_infer.serving.names import MANAGER
from atomr_infer.serving.steering import Order
from tests.gateway.http import Answer, chat, request, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

M = Deployment(name="m", runtime="mock")
N = Deployment(name="n", runtime="mock")
PLAN = ServePlan(
    deployments=(M,), gateway=GatewayConfig(bind="127.0.0.1:0"), source="atomr.toml"
)
SLOW = attrs.evolve(M, options={"delay_s": 0.2, "tokens": 3})
CLUSTER = ClusterConfig(
    name="prod",
    voters=("a",),
    cookie=EnvSecret("COOKIE"),
    ca="ca.pem",
    certificate="a.pem",
    private_key="a.key",
)
BROKEN = attrs.evolve(N, options={"weights": "none"})


@attrs.define
class Served:
    """A gateway, and what its configuration says."""

    cluster: Cluster
    gateway: Gateway
    reloader: Reloader
    says: list[ServePlan | ConfigError]

    @property
    def port(self) -> int:
        return int(self.gateway.url.rpartition(":")[2])

    async def reload(self, said: ServePlan | ConfigError) -> list[str]:
        """Reload, and return what differed, or why it was refused."""
        self.says.append(said)
        done = await self.reloader.reload("test")
        if done.refused is not None:
            return [done.refused]
        return [difference.line for difference in done.differences]


@asynccontextmanager
async def serving(plan: ServePlan = PLAN) -> AsyncIterator[Served]:
    says: list[ServePlan | ConfigError] = []

    def again() -> ServePlan:
        said = says[-1]
        if isinstance(said, ConfigError):
            raise said
        return said

    async with Cluster.connect("inproc://test") as cluster:
        for deployment in plan.deployments:
            await cluster.deploy(deployment)
        gateway = await cluster.serve("127.0.0.1:0")
        async with trio.open_nursery() as nursery:
            reloader = Reloader(cluster, gateway, plan, again, nursery)
            yield Served(cluster, gateway, reloader, says)
            nursery.cancel_scope.cancel()


def test_what_differs_is_found_in_every_table() -> None:
    wanted = attrs.evolve(
        PLAN,
        deployments=(attrs.evolve(M, serves=("m", "k")), N),
        gateway=GatewayConfig(bind="127.0.0.1:1", keepalive_s=1.0),
        keys=(Secret("sk-another"),),
        teams=(Team(name="red"),),
        budgets=(OwnedBudget(budget=Budget(per=Per.DAY, usd="10"), team="red"),),
        node=NodeConfig(name="a"),
    )
    assert [difference.line for difference in differences(PLAN, wanted)] == [
        '~ deployment \'m\': serves: ["m"] -> ["m", "k"]',
        "+ deployment 'n' (mock)",
        "~ [gateway]: keepalive_s: 15.0 -> 1.0, keys: a key -> another key",
        '~ [gateway]: bind: "127.0.0.1:0" -> "127.0.0.1:1" (with a restart)',
        "+ [[team]] 'red'",
        "+ [[budget]] 'team red, usd/day'",
        '~ [node]: name: nothing -> "a" (with a restart)',
    ]
    assert differences(PLAN, PLAN) == ()


def test_what_differs_in_a_team_or_a_budget_is_told_key_by_key() -> None:
    def plan(weight: float, usd: str, rpm: int) -> ServePlan:
        limits = RateLimits(requests_per_minute=rpm)
        budget = Budget(per=Per.DAY, usd=usd)
        return attrs.evolve(
            PLAN,
            teams=(Team(name="red", weight=weight, rate_limits=limits),),
            budgets=(OwnedBudget(budget=budget, team="red"),),
        )

    before, after = plan(1.0, "10", 60), plan(2.0, "20", 30)
    assert [difference.line for difference in differences(before, after)] == [
        "~ [[team]] 'red': rate_limits.requests_per_minute: 60 -> 30, "
        "weight: 1.0 -> 2.0",
        '~ [[budget]] \'team red, usd/day\': budget.usd: "10" -> "20"',
    ]
    assert [difference.line for difference in differences(before, PLAN)] == [
        "- [[team]] 'red'",
        "- [[budget]] 'team red, usd/day'",
    ]


async def test_what_is_new_is_served_and_what_is_gone_is_not() -> None:
    async with serving() as served:
        lines = await served.reload(attrs.evolve(PLAN, deployments=(N,)))
        assert lines == ["+ deployment 'n' (mock)", "- deployment 'm'"]
        assert (await chat(served.port, model="n")).status == 200
        assert (await chat(served.port, model="m")).status == 404
        assert served.reloader.plan.deployments == (N,)
        assert await served.reload(served.reloader.plan) == []


async def test_what_was_taken_out_ends_with_its_last_request() -> None:
    async with serving(attrs.evolve(PLAN, deployments=(SLOW, N))) as served:
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await chat(served.port))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: served.gateway.running == 1)
            await served.reload(attrs.evolve(PLAN, deployments=(N,)))
            assert (await chat(served.port)).status == 404
        assert [answer.status for answer in answers] == [200]
        # One of its name comes back when the last one has ended.
        await served.reload(attrs.evolve(PLAN, deployments=(N, M)))
        assert (await chat(served.port)).status == 200


async def test_a_crash_while_what_was_taken_out_ends_ends_no_server(
    capsys: pytest.CaptureFixture[str],
) -> None:
    slow = attrs.evolve(SLOW, options={"delay_s": 30.0})
    async with serving(attrs.evolve(PLAN, deployments=(slow, N))) as served:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chat, served.port)
            await until(lambda: served.gateway.running == 1)
            await served.reload(attrs.evolve(PLAN, deployments=(N,)))
            await until(lambda: "m" in served.cluster._serving.draining)
            with served.cluster.at_home():
                kill(MANAGER)
            # Who comes after it ends what nobody waits for any more.
            await until(lambda: "m: its end was not seen" in capsys.readouterr().err)
        await until(lambda: not served.cluster._serving.draining)
        assert (await chat(served.port, model="n")).status == 200
        await served.reload(attrs.evolve(PLAN, deployments=(N, M)))
        assert (await chat(served.port)).status == 200


async def test_what_has_a_plan_is_taken_over_and_not_exchanged() -> None:
    careful = attrs.evolve(M, hot_swap=SwapPlan(step_s=0, min_requests=0))
    async with serving(attrs.evolve(PLAN, deployments=(careful,))) as served:
        # What an engine is not made with changes at once.
        wide = attrs.evolve(careful, default_max_tokens=7)
        await served.reload(attrs.evolve(PLAN, deployments=(wide,)))
        assert served.cluster.hot_swaps.statuses() == ()
        other = attrs.evolve(wide, options={"reply": "other"})
        await served.reload(attrs.evolve(PLAN, deployments=(other,)))
        swaps = served.cluster.hot_swaps
        await until(lambda: [s.phase for s in swaps.statuses()] == [Phase.SWAPPED])
        answer = await chat(served.port, model="m")
        assert answer.json["choices"][0]["message"]["content"] == "other"


async def test_a_file_that_cannot_work_changes_nothing_and_is_remembered() -> None:
    told: list[tuple[tuple[str, ...], object]] = []
    name = ("atomr_infer", "configuration", "refused")
    telemetry.attach(
        "test", name, lambda event, _, about: told.append((event, about["reason"]))
    )
    try:
        async with serving() as served:
            problem = ConfigError("no such thing", path="atomr.toml", line=7)
            assert await served.reload(problem) == ["atomr.toml:7: no such thing"]
            refused = served.reloader.refused
            assert refused is not None
            assert refused.reason == "atomr.toml:7: no such thing"
            assert (await chat(served.port)).status == 200
            assert told == [(name, "atomr.toml:7: no such thing")]
            assert await served.reload(PLAN) == []
            assert served.reloader.refused is None
    finally:
        telemetry.detach("test")


async def test_one_that_cannot_be_started_leaves_all_as_it_was() -> None:
    async with serving() as served:
        o = attrs.evolve(N, name="o")
        wanted = attrs.evolve(
            PLAN,
            deployments=(attrs.evolve(M, serves=("k",)), o, BROKEN),
            gateway=attrs.evolve(PLAN.gateway, max_body_bytes=10),
        )
        (problem,) = await served.reload(wanted)
        assert "weights" in problem
        assert (await chat(served.port)).status == 200
        await until(lambda: served.cluster.models() == ("m",))
        assert served.reloader.plan is PLAN


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_model_that_is_not_there_is_told_before_anything_is_started(
    write: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, *, dry_run: bool
) -> None:
    path = write(
        '[[deployment]]\nname = "m"\nruntime = "mock"\n'
        '[[deployment]]\nname = "o"\nruntime = "mock"\n'
        '[[deployment]]\nname = "l"\nruntime = "mistralrs"\nmodel = "/no/such.gguf"\n'
    )
    deployed: list[str] = []

    async def deploy(_: Cluster, wanted: Deployment, **__: object) -> None:
        deployed.append(wanted.name)

    async with serving() as served:
        monkeypatch.setattr(Cluster, "deploy", deploy)
        served.says.append(plan_serving(config_path=Path(path), bind=None))
        done = await served.reloader.reload("test", dry_run=dry_run)
        told = f"{path}:10: deployment 'l': there is no '/no/such.gguf'"
        assert done.refused == told
        assert (deployed, served.reloader.plan) == ([], PLAN)
        assert (await chat(served.port)).status == 200


@pytest.mark.parametrize(
    ("changes", "keeps_engine"),
    [
        ("", True),
        ('serves = ["l", "k"]\n', True),
        ("[deployment.serving]\nmax_queue = 7\n", True),
        ("[deployment.timeouts]\nstuck_s = 300.0\n", True),
        ("[deployment.timeouts]\nsilent_s = 300.0\n", False),
    ],
)
@pytest.mark.parametrize("is_there", [False, True])
async def test_a_model_may_be_away_while_its_engine_runs_and_is_kept(
    write: Callable[[str], str],
    tmp_path: Path,
    changes: str,
    *,
    keeps_engine: bool,
    is_there: bool,
) -> None:
    """What runs is not loaded anew; what somebody has taken out is."""
    model = tmp_path / "m.gguf"
    model.touch()
    local = f'[[deployment]]\nname = "l"\nruntime = "mistralrs"\nmodel = "{model}"\n'
    path = Path(write(local))
    running = plan_serving(config_path=path, bind=None)
    write(local + changes + '[[deployment]]\nname = "n"\nruntime = "mock"\n')
    async with serving() as served:
        if is_there:  # what runs, as far as a reload can see
            await served.cluster.deploy(Deployment(name="l", runtime="mock"))
        served.reloader.plan = running
        model.unlink()
        served.says.append(plan_serving(config_path=path, bind=None))
        done = await served.reloader.reload("test", dry_run=True)
        if is_there and keeps_engine:
            assert done.refused is None
        else:
            assert "there is no" in (done.refused or "")
        assert "+ deployment 'n' (mock)" in [each.line for each in done.differences]


def test_a_runtime_of_other_nodes_is_asked_for_files_by_who_would_load_it() -> None:
    now = Deployment(name="l", runtime="nowhere-installed")
    queued = attrs.evolve(now, serves=("l", "k"))
    plan = attrs.evolve(PLAN, deployments=(queued,), cluster=CLUSTER)
    assert missing_to_load(plan, {"l": now}) == ()
    with pytest.raises(ConfigError, match=r"deployment 'l'.*nowhere-installed"):
        missing_to_load(plan, {})


@pytest.mark.parametrize("is_one_machine", [False, True])
def test_a_model_that_another_machine_may_have_is_only_noted(
    *, is_one_machine: bool
) -> None:
    local = Deployment(name="l", runtime="mistralrs", model="/no/such.gguf")
    plan = attrs.evolve(
        PLAN, deployments=(local,), cluster=CLUSTER, is_one_machine=is_one_machine
    )
    told = "deployment 'l': there is no '/no/such.gguf'"
    if is_one_machine:  # workers: where one finds nothing, none does
        with pytest.raises(ConfigError, match=told):
            list(missing_models(plan))
    else:
        assert list(missing_models(plan)) == [
            f"{told} here; a node that loads it needs it"
        ]


async def test_one_that_cannot_become_another_takes_what_is_new_back() -> None:
    async with serving() as served:
        worse = attrs.evolve(M, options={"weights": "none"})
        (problem,) = await served.reload(attrs.evolve(PLAN, deployments=(worse, N)))
        assert "weights" in problem
        assert (await chat(served.port)).status == 200
        await until(lambda: served.cluster.models() == ("m",))


async def test_a_dry_run_says_all_and_changes_nothing() -> None:
    async with serving() as served:
        served.says.append(attrs.evolve(PLAN, deployments=(N,)))
        done = await served.reloader.reload("test", dry_run=True)
        assert len(done.differences) == 2
        assert done.refused is None
        assert served.cluster.models() == ("m",)
        served.says.append(ConfigError("no"))
        done = await served.reloader.reload("test", dry_run=True)
        assert done.refused == "no"
        assert served.reloader.refused is None


async def test_the_gateways_own_settings_change_while_it_serves() -> None:
    async with serving() as served:
        gateway = attrs.evolve(
            PLAN.gateway, max_body_bytes=20, cors_origins=("https://a.example",)
        )
        wanted = attrs.evolve(PLAN, gateway=gateway, keys=(Secret("sk-key"),))
        assert len(await served.reload(wanted)) == 1
        assert (await chat(served.port)).status == 401
        key = {"authorization": "Bearer sk-key", "origin": "https://a.example"}
        answer = await request(served.port, "GET", "/v1/models", b"", **key)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        large = await request(
            served.port, "POST", "/v1/chat/completions", b"x" * 30, **key
        )
        assert large.status == 413
        await served.reload(PLAN)
        assert (await chat(served.port)).status == 200


async def test_operators_routes_come_and_go() -> None:
    async with serving() as served:
        key = {"authorization": "Bearer adm-1234"}
        wanted = attrs.evolve(PLAN, admin_key=Secret("adm-1234"))
        assert (
            await request(served.port, "GET", "/admin/tree", b"", **key)
        ).status == 404
        await served.reload(wanted)
        assert (
            await request(served.port, "GET", "/admin/tree", b"", **key)
        ).status == 200
        await served.reload(PLAN)
        assert (
            await request(served.port, "GET", "/admin/tree", b"", **key)
        ).status == 404


async def test_who_performs_peers_orders_is_changed_by_what_is_taken_alone() -> None:
    async with serving() as served:
        steering = served.cluster._serving.node.steering

        def who() -> object:
            return steering.perform

        assert who() is None
        wanted = attrs.evolve(PLAN, admin_key=Secret("adm-1234"))
        await served.reload(wanted)
        performs = steering.perform
        assert performs is not None
        for other in (attrs.evolve(PLAN, admin_key=Secret("adm-5678")), PLAN):
            served.says.append(other)
            assert (await served.reloader.reload("test", dry_run=True)).refused is None
            assert who() == performs
        order = Order(method="GET", path="/admin/tree", query="", body=b"")
        assert (await performs(order)).status == 200
        await served.reload(PLAN)
        assert who() is None


async def test_an_admin_key_that_opens_the_gateway_is_refused() -> None:
    async with serving() as served:
        both = attrs.evolve(PLAN, keys=(Secret("k"),), admin_key=Secret("k"))
        (problem,) = await served.reload(both)
        assert problem.startswith("the admin key is one of the gateway's keys")
        assert (await chat(served.port)).status == 200


async def test_an_address_waits_for_a_restart_and_is_told_again() -> None:
    async with serving() as served:
        gateway = attrs.evolve(PLAN.gateway, bind="127.0.0.1:1")
        wanted = attrs.evolve(PLAN, gateway=gateway)
        for _ in range(2):
            (line,) = await served.reload(wanted)
            assert line.endswith("(with a restart)")
        assert (await chat(served.port)).status == 200


async def test_two_reloads_at_once_come_one_after_the_other() -> None:
    async with serving() as served:
        served.says.append(attrs.evolve(PLAN, deployments=(M, N)))
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(served.reloader.reload, "test")
        assert served.cluster.models() == ("m", "n")


async def test_a_reload_that_is_given_up_leaves_all_as_it_was() -> None:
    async with serving() as served:
        slow = attrs.evolve(N, options={"load_s": 30.0})
        served.says.append(attrs.evolve(PLAN, deployments=(M, slow)))
        with trio.move_on_after(0.5) as patience:
            await served.reloader.reload("test")
        assert patience.cancelled_caught
        await until(lambda: served.cluster.models() == ("m",))
        assert await served.reload(PLAN) == []
        assert (await chat(served.port)).status == 200


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.slow)])
async def test_many_reloads_under_load_cost_no_request(count: int) -> None:
    plain = attrs.evolve(M, options={"delay_s": 0.01, "tokens": 20})
    async with serving(attrs.evolve(PLAN, deployments=(plain,))) as served:
        answers: list[Answer] = []
        done = False

        async def ask() -> None:
            while not done:
                answers.append(await chat(served.port, stream=True))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
            await until(lambda: served.gateway.running == 4)
            for number in range(count):
                options = {**plain.options, "reply": f"answer {number}"}
                others = (attrs.evolve(N, name=f"n{number}"),)
                changed = attrs.evolve(plain, options=options)
                lines = await served.reload(
                    attrs.evolve(PLAN, deployments=(changed, *others))
                )
                assert len(lines) == (2 if not number else 3)
            done = True
        assert {answer.status for answer in answers} == {200}
        assert all(answer.body.endswith(b"data: [DONE]\n\n") for answer in answers)
        (replica,) = await served.cluster.replicas("m")
        await until(lambda: not replica.outstanding)
        assert len(answers) >= 4
