"""The operators' figures, over real sockets, as Prometheus' own parser reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from atomr_infer.gateway.admin.metrics import routes
from atomr_infer.model import figures
from atomr_infer.model.budget import Budget, Per
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.secret import Secret
from atomr_infer.serving.steering import Done, Order
from tests.gateway.figures_read import Figures
from tests.gateway.http import Answer, chat, request
from tests.gateway.test_admin_everywhere import KEY, admin, two_nodes

if TYPE_CHECKING:
    import pytest

    from tests.gateway.conftest import Running, Serve

M = Deployment(name="m", runtime="mock")
PAGE = (Path(__file__).parents[2] / "docs/reference/metrics.md").read_text()
TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def scraped(running: Running) -> Figures:
    return read(await admin(running.port, "GET", "/admin/metrics"))


def read(answer: Answer) -> Figures:
    assert (answer.status, answer.headers["content-type"]) == (200, TYPE)
    return Figures(answer.body)


async def test_what_was_done_is_counted(serve: Serve) -> None:
    async with serve(M, admin_key=Secret(KEY)) as running:
        for stream in (False, True):
            assert (await chat(running.port, stream=stream)).status == 200
        assert (await chat(running.port, model="nobody's")).status == 404
        assert (await request(running.port, "GET", "/no/such")).status == 404
        told = await scraped(running)
    assert told.of("atomr_infer_requests_total", "deployment", "outcome") == {
        ("m", "completed"): 2.0
    }
    assert told.of("atomr_infer_attempts_total", "deployment", "result") == {
        ("m", "answered"): 2.0
    }
    assert told.of("atomr_infer_answers_total", "action", "dialect", "status") == {
        ("generate", "openai-chat", "200"): 2.0,
        ("generate", "openai-chat", "404"): 1.0,
        ("none", "", "404"): 1.0,
    }
    tokens = told.of("atomr_infer_tokens_total", "kind", deployment="m")
    assert tokens[("output",)] == 6.0
    assert told.one("atomr_infer_unpriced_requests_total") == 2.0
    for what in ("request", "wait", "first_token", "token"):
        name = f"atomr_infer_{what}_seconds"
        assert told.types[name] == "histogram"
        assert told.one(f"{name}_count") == 2.0
        [last] = told.of(f"{name}_bucket", "node", le="+Inf").values()
        assert last == 2.0


async def test_how_all_stands_is_told(serve: Serve) -> None:
    limited = Deployment(
        name="m",
        runtime="mock",
        rate_limits=RateLimits(requests_per_minute=10),
        budget=(Budget(per=Per.MONTH, tokens=1000),),
    )
    async with serve(limited, admin_key=Secret(KEY)) as running:
        assert (await chat(running.port, max_tokens=8)).status == 200
        told = await scraped(running)
    documented = set(re.findall("`((?:atomr_infer|process)_[a-z_]+)`", PAGE))
    assert told.names() <= documented
    assert told.one("atomr_infer_ready") == 1.0
    assert told.one("atomr_infer_peers") == 0.0
    of = {"deployment": "m", "replica": "0"}
    assert told.one("atomr_infer_replica_serving", **of) == 1.0
    assert told.one("atomr_infer_replica_running", **of) == 0.0
    assert told.one("atomr_infer_replica_waiting", **of) == 0.0
    assert told.one("atomr_infer_replica_limit", **of) > 1.0
    assert told.one("atomr_infer_replica_starts_total", **of) == 1.0
    [used] = told.of("atomr_infer_rate_limit_used", "counts").items()
    assert used == (("requests_per_minute",), 1.0)
    assert told.one("atomr_infer_rate_limit_permits") == 10.0
    assert told.one("atomr_infer_budget_limit_tokens") == 1000.0
    assert 0.0 < told.one("atomr_infer_budget_spent_tokens") < 1000.0
    assert told.one("atomr_infer_info") == 1.0
    assert told.one("process_resident_memory_bytes") > 1e6
    assert told.one("process_cpu_seconds_total") > 0.0
    assert told.one("process_open_fds") > 3.0
    assert KEY not in told.text


async def test_two_keys_for_one_model_have_figures_of_their_own(serve: Serve) -> None:
    limits = RateLimits(requests_per_minute=10)
    two = [
        Deployment(
            name=name,
            runtime="mock",
            model="m",
            serves=(name,),
            credential=Secret(f"sk-{name}"),
            rate_limits=limits,
        )
        for name in ("a", "b")
    ]
    async with serve(*two, admin_key=Secret(KEY)) as running:
        assert (await chat(running.port, model="a")).status == 200
        told = await scraped(running)
    used = told.of("atomr_infer_rate_limit_used", "owner", "account")
    assert sorted(used.values()) == [0.0, 1.0]
    assert {owner for owner, _ in used} == {"mock, model m"}
    assert "sk-" not in told.text


def test_the_page_has_no_figure_that_is_not_told() -> None:
    named = set(re.findall("`(atomr_infer_[a-z_]+)`", PAGE))
    source = "".join(
        file.read_text() for file in Path(routes.__file__).parent.glob("*.py")
    )
    shared = Path(figures.__file__).read_text()
    for name in sorted(named):
        word = name.removeprefix("atomr_infer_").removesuffix("_total")
        if word.startswith("budget_"):
            assert f'("{word.split("_")[1]}", ' in source, name
        elif word.startswith("engine_") and word != "engine_told":
            assert f'"{word.removeprefix("engine_")}"' in shared, name
        else:
            assert f'"{word}"' in source, name


async def test_a_circuit_is_in_one_state(serve: Serve) -> None:
    remote = Deployment(
        name="gpt",
        runtime="openai",
        serves=("gpt",),
        options={"endpoint": "http://127.0.0.1:1/v1"},
    )
    async with serve(remote, admin_key=Secret(KEY)) as running:
        states = "atomr_infer_circuit_state"
        before = (await scraped(running)).of(states, "state")
        await admin(running.port, "POST", "/admin/breakers/gpt/open")
        after = (await scraped(running)).of(states, "state")
    assert before == {("closed",): 1.0, ("open",): 0.0, ("half_open",): 0.0}
    assert after == {("closed",): 0.0, ("open",): 1.0, ("half_open",): 0.0}


async def test_a_client_s_words_are_no_label(serve: Serve) -> None:
    every = Deployment(name="all", runtime="mock", serves=("*",))
    async with serve(every, admin_key=Secret(KEY)) as running:
        for number in range(5):
            await chat(running.port, model=f"secret-{number}")
            await request(running.port, "GET", f"/secret/{number}")
            await request(running.port, "SECRET", "/v1/models")
        told = await scraped(running)
    assert "secret" not in told.text.lower()
    assert told.one("atomr_infer_requests_total") == 5.0
    assert told.labels("atomr_infer_request_seconds_count") == {
        "node",
        "deployment",
    }


async def test_what_is_counted_of_a_deployment_goes_with_it(serve: Serve) -> None:
    async with serve(M, admin_key=Secret(KEY)) as running:
        await chat(running.port)
        assert (await scraped(running)).one("atomr_infer_requests_total") == 1.0
        await running.cluster.undeploy("m")
        told = await scraped(running)
    assert told.of("atomr_infer_requests_total", "deployment") == {}
    assert told.one("atomr_infer_answers_total", status="200") == 1.0


async def test_they_are_the_operators_alone(serve: Serve) -> None:
    async with serve(M, admin_key=Secret(KEY)) as running:
        refused = await request(running.port, "GET", "/admin/metrics")
        assert (refused.status, refused.json["error"]["code"]) == (
            401,
            "invalid_admin_key",
        )
        assert (await admin(running.port, "GET", "/metrics")).status == 404
        bad = await admin(running.port, "GET", "/admin/metrics?nodes=b")
        assert (bad.status, bad.json["error"]["code"]) == (400, "bad_nodes")


async def test_at_the_operators_address_the_short_path_is_there(serve: Serve) -> None:
    async with serve(M, admin_key=Secret(KEY), admin_bind="127.0.0.1:0") as running:
        assert running.gateway.admin_url is not None
        port = int(running.gateway.admin_url.rpartition(":")[2])
        told = read(await admin(port, "GET", "/metrics"))
        assert told.one("atomr_infer_ready") == 1.0
        assert (await request(port, "GET", "/metrics")).status == 401


async def test_all_nodes_are_told_in_one_text(tmp_path: Path) -> None:
    async with two_nodes(tmp_path) as (port, b):
        here = read(await admin(port, "GET", "/admin/metrics"))
        everywhere = read(await admin(port, "GET", "/admin/metrics?nodes=all"))
        this = read(await admin(port, "GET", "/admin/metrics?nodes=this"))
        # A worker's port is the other workers', too: any of them tells of all.
        with b.at_home():
            b._serving.node.shares_port = True
        perform = b._serving.node.steering.perform
        assert perform is not None
        asked = await perform(Order("GET", "/admin/metrics"))
    info = "atomr_infer_info"
    assert here.of(info, "node") == this.of(info, "node") == {("a",): 1.0}
    both = {("a",): 1.0, ("b",): 1.0}
    assert everywhere.of(info, "node") == both
    assert everywhere.of("atomr_infer_node_told", "node", "of") == {("a", "b"): 1.0}
    worker = Figures(asked.body)
    assert worker.of(info, "node") == both
    assert worker.of("atomr_infer_node_told", "node", "of") == {("b", "a"): 1.0}


async def test_a_node_that_cannot_tell_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_nodes(tmp_path, second_key=None) as (port, b):
        told = read(await admin(port, "GET", "/admin/metrics?nodes=all"))

        async def never(_: Order) -> Done:
            await trio.sleep_forever()
            raise AssertionError

        b._serving.node.steering.perform = never
        monkeypatch.setattr(routes, "ELSEWHERE_S", 0.05)
        with trio.fail_after(20):
            late = read(await admin(port, "GET", "/admin/metrics?nodes=all"))
    for found in (told, late):
        assert found.of("atomr_infer_info", "node") == {("a",): 1.0}
        assert found.of("atomr_infer_node_told", "of") == {("b",): 0.0}
