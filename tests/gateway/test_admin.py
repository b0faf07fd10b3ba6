"""The operators' routes, over real sockets: what they show, steer, and refuse."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr.process import kill, whereis
from atomr_infer.cluster import Cluster
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.failover import BreakerPolicy
from atomr_infer.model.secret import Secret
from atomr_infer.serving.names import MANAGER
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_openai_upstream
from tests.gateway.http import Answer, chat, head, parse, request, until
from tests.gateway.http1 import Client, get
from tests.gateway.test_lanes import ask_h2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.gateway.conftest import Running, Serve

KEY = "adm-0123456789"
ROUTES = [
    ("GET", "/admin/deployments"),
    ("GET", "/admin/deployments/m"),
    ("POST", "/admin/breakers/m/open"),
    ("POST", "/admin/credentials/m/renew"),
    ("GET", "/admin/tree"),
    ("GET", "/admin/nothing"),
    ("OPTIONS", "/admin/tree"),
]

MOCK = Deployment(name="m", runtime="mock")


def remote(base_url: str, *, keys: int = 1) -> Deployment:
    pool = tuple(Secret(f"sk-{number}") for number in range(keys))
    return Deployment(
        name="house/gpt",
        runtime="openai",
        serves=("gpt",),
        credential=pool[0] if keys == 1 else None,
        credentials=pool if keys > 1 else (),
        options={"endpoint": base_url},
        retry=RetryPolicy(max_attempts=1),
        breaker=BreakerPolicy(max_failures=1),
    )


async def admin(port: int, method: str, path: str, *, key: str = KEY) -> Answer:
    return await request(port, method, path, authorization=f"Bearer {key}")


@asynccontextmanager
async def connected_to(running: Running) -> AsyncIterator[Client]:
    stream = await trio.open_tcp_stream("127.0.0.1", running.port)
    async with stream:
        yield Client(stream)


async def shown(running: Running) -> Any:
    answer = await admin(running.port, "GET", "/admin/deployments")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return answer.json["deployments"]


# --- who may -------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_an_admin_key_there_are_no_such_routes(
    serve: Serve, method: str, path: str
) -> None:
    async with serve(MOCK) as running:
        answer = await admin(running.port, method, path)
    assert answer.status in {404, 405}
    assert "there is no /admin/" in answer.json["error"]["message"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "shows",
    [
        {},
        {"authorization": "Bearer " + KEY[:-1]},
        {"authorization": "Bearer client"},
        {"authorization": f"Basic {KEY}"},
        {"x_api_key": ""},
    ],
    ids=["none", "a piece", "a client's", "no bearer", "empty"],
)
async def test_nothing_but_the_admin_key_opens_any_of_them(
    serve: Serve, method: str, path: str, shows: dict[str, str]
) -> None:
    keys = [Secret("client")]
    async with serve(MOCK, keys=keys, admin_key=Secret(KEY)) as running:
        for asked in (path, f"{path}?key={KEY}"):
            answer = await request(running.port, method, asked, b"", **shows)
            assert answer.status == 401
            assert answer.json["error"]["code"] == "invalid_admin_key"
        guard = running.cluster.breakers()
        assert dict(guard) == {}


async def test_the_admin_key_opens_nothing_else(serve: Serve) -> None:
    keys = [Secret("client")]
    async with serve(MOCK, keys=keys, admin_key=Secret(KEY)) as running:
        answer = await admin(running.port, "GET", "/v1/models")
        assert answer.status == 401
        own = await request(running.port, "GET", "/v1/models", x_api_key="client")
        assert own.status == 200


async def test_a_key_of_the_clients_is_no_admin_key() -> None:
    async with Cluster.connect("inproc://admin") as cluster:
        with pytest.raises(ConfigError, match="one of the gateway's keys"):
            await cluster.serve(
                "127.0.0.1:0", keys=[Secret(KEY)], admin_key=Secret(KEY)
            )


def test_a_gateway_without_them_loads_no_other_server() -> None:
    program = (
        "import sys, trio\n"
        "from atomr_infer.cluster import Cluster\n"
        "async def main():\n"
        "    async with Cluster.connect('inproc://x') as cluster:\n"
        "        await cluster.serve('127.0.0.1:0')\n"
        "trio.run(main)\n"
        "print(*(name for name in sys.modules if '.' not in name))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(ran.stdout.split())
    assert "msgspec" in loaded
    # Nor hypercorn, which serves them and what is not HTTP/1.1.
    assert (
        loaded & {"hypercorn", "quart", "quart_trio", "flask", "jinja2", "werkzeug"}
        == set()
    )


# --- what is shown ---------------------------------------------------------------


async def test_a_local_deployment_has_replicas_and_no_circuit(serve: Serve) -> None:
    async with serve(MOCK, admin_key=Secret(KEY)) as running:
        limit = running.cluster._serving.replicas("m")[0].limit
        assert await shown(running) == [
            {
                "name": "m",
                "runtime": "mock",
                "serves": ["m"],
                "phase": "serving",
                "replicas": [
                    {
                        "number": 0,
                        "phase": "serving",
                        "running": 0,
                        "waiting": 0,
                        "limit": limit,
                        "starts": 1,
                        "engine_pid": None,
                        "error": None,
                    }
                ],
                "elsewhere": [],
                "circuit": None,
                "keys": [],
                "conflicts": [],
            }
        ]


async def test_a_circuit_is_shown_with_its_steps(serve: Serve) -> None:
    async with open_openai_upstream([script.server_error()]) as upstream:
        deployment = remote(upstream.base_url)
        async with serve(deployment, admin_key=Secret(KEY)) as running:
            await chat(running.port, model="gpt")
            one = await admin(running.port, "GET", "/admin/deployments/house/gpt")
            [listed] = await shown(running)
    circuit = one.json["circuit"]
    assert (one.json["name"], one.json["keys"]) == ("house/gpt", ["fresh"])
    assert listed["circuit"]["endpoint"] == circuit["endpoint"]
    assert upstream.base_url in circuit["endpoint"]
    assert (circuit["state"], circuit["refuses"], circuit["probes"]) == (
        "open",
        True,
        0,
    )
    assert 0 < circuit["retry_after_s"] <= BreakerPolicy().open_s
    [step] = circuit["history"]
    assert 0 <= step.pop("ago_s") < 10
    assert step == {
        "before": "closed",
        "after": "open",
        "reason": "too many failures",
    }


async def test_running_requests_and_the_limit_are_shown(serve: Serve) -> None:
    async with (
        open_openai_upstream([script.HangBeforeHeaders()]) as upstream,
        serve(remote(upstream.base_url), admin_key=Secret(KEY)) as running,
        trio.open_nursery() as nursery,
    ):

        async def ask() -> None:
            await chat(running.port, model="gpt")

        nursery.start_soon(ask)
        await until(lambda: len(upstream.requests) == 1)
        [replica] = (await shown(running))[0]["replicas"]
        assert (replica["running"], replica["waiting"]) == (1, 0)
        assert replica["limit"] >= 1
        tree = (await admin(running.port, "GET", "/admin/tree")).json
        nursery.cancel_scope.cancel()
    requests = _named(tree, "requests")
    assert [child["behaviour"] for child in requests["children"]] == ["Attached"]


async def test_the_tree_is_the_supervision_tree(serve: Serve) -> None:
    async with serve(MOCK, admin_key=Secret(KEY)) as running:
        tree = (await admin(running.port, "GET", "/admin/tree")).json
        with running.cluster.at_home():
            manager = whereis(MANAGER)
            assert manager is not None
            kill(manager)
            await until(lambda: whereis(MANAGER) not in (None, manager))
        after = (await admin(running.port, "GET", "/admin/tree")).json
    assert (tree["behaviour"], tree["kind"], tree["pid"]) == (
        "Node",
        "supervisor",
        None,
    )
    core = _named(tree, "engine_core")
    assert core["behaviour"] == "EngineCore"
    assert (core["kind"], core["state"], core["restarts"]) == ("worker", "running", 0)
    assert core["uptime_s"] >= 0
    assert _named(tree, "deployment_manager")["restarts"] == 0
    assert _named(after, "deployment_manager")["restarts"] == 1
    gateways = _named(tree, "gateways")
    assert [child["id"] for child in gateways["children"]] == [running.url]


def _named(tree: Any, name: str) -> Any:
    if tree["id"] == name:
        return tree
    found = (_named(child, name) for child in tree["children"])
    return next((each for each in found if each is not None), None)


# --- what is steered ---------------------------------------------------------------


async def test_a_forced_circuit_stays_so_until_it_is_closed(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        open_openai_upstream() as upstream,
        serve(remote(upstream.base_url), admin_key=Secret(KEY)) as running,
    ):
        path = "/admin/breakers/house/gpt"
        opened = await admin(running.port, "POST", f"{path}/open")
        assert (opened.status, opened.json["state"]) == (200, "open")
        assert (opened.json["refuses"], opened.json["retry_after_s"]) == (True, None)
        refused = await chat(running.port, model="gpt")
        assert refused.status == 503
        assert len(upstream.requests) == 0
        closed = await admin(running.port, "POST", f"{path}/close")
        assert (closed.json["state"], closed.json["refuses"]) == ("closed", False)
        assert (await chat(running.port, model="gpt")).status == 200
        assert [step["reason"] for step in closed.json["history"]] == [
            "forced open",
            "forced closed",
        ]
    told = [r.getMessage() for r in caplog.records if "admin at" in r.getMessage()]
    assert len(told) == 2
    assert told[0].startswith("admin at 127.0.0.1 forced the circuit of ")
    assert KEY not in caplog.text


async def test_renewed_keys_are_taken_for_good_again(serve: Serve) -> None:
    refused = script.Refused(status=401, message="no", code="invalid_api_key")
    async with (
        open_openai_upstream([refused, refused]) as upstream,
        serve(remote(upstream.base_url, keys=2), admin_key=Secret(KEY)) as running,
    ):
        assert (await chat(running.port, model="gpt")).status == 502
        assert (await shown(running))[0]["keys"] == ["dead", "dead"]
        path = "/admin/credentials/house/gpt/renew"
        answer = await admin(running.port, "POST", path)
        assert (answer.status, answer.json) == (
            200,
            {"deployment": "house/gpt", "renewed": True},
        )
        assert (await shown(running))[0]["keys"] == ["fresh", "fresh"]
        assert (await chat(running.port, model="gpt")).status == 200


# --- what is refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/admin/deployments/none", 404, "deployment_not_found"),
        ("POST", "/admin/breakers/none/open", 404, "deployment_not_found"),
        ("POST", "/admin/breakers/m/open", 409, "no_circuit"),
        ("POST", "/admin/breakers/m/ajar", 404, "not_served"),
        ("POST", "/admin/credentials/none/renew", 404, "deployment_not_found"),
        ("GET", "/admin/nothing", 404, "not_served"),
        ("GET", "/admin/", 404, "not_served"),
        ("POST", "/admin/tree", 405, "not_served"),
        ("GET", "/admin/breakers/m/open", 405, "not_served"),
    ],
)
async def test_what_cannot_be_done_is_said_as_json(
    serve: Serve, method: str, path: str, status: int, code: str
) -> None:
    async with serve(MOCK, admin_key=Secret(KEY)) as running:
        answer = await admin(running.port, method, path)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert ("allow" in answer.headers) == (status == 405)


async def test_a_bug_is_500_and_only_the_log_says_more(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(MOCK, admin_key=Secret(KEY)) as running:
        serving = running.cluster._serving
        monkeypatch.delattr(type(serving), "key_states")
        answer = await admin(running.port, "GET", "/admin/deployments")
        assert (await chat(running.port)).status == 200
    assert answer.status == 500
    assert answer.json["error"]["message"] == "internal error; the log says more"
    assert "key_states" in caplog.text


# --- how it is served ---------------------------------------------------------------


async def test_a_connection_may_ask_for_both(serve: Serve) -> None:
    async with (
        serve(MOCK, admin_key=Secret(KEY)) as running,
        connected_to(running) as client,
    ):
        key = f"authorization: Bearer {KEY}"
        for path in ("/readyz", "/admin/tree", "/readyz", "/admin/deployments"):
            await client.send(get(path, key))
            answer = await client.answer()
            assert answer.status == 200, path
        assert json.loads(answer.body)["deployments"][0]["name"] == "m"


async def test_http2_reaches_them_as_well(serve: Serve) -> None:
    async with (
        serve(MOCK, admin_key=Secret(KEY)) as running,
        connected_to(running) as client,
    ):
        body = await ask_h2(client, in_pieces=False, path="/admin/tree")
    assert json.loads(body)["error"]["code"] == "invalid_admin_key"


async def test_a_drain_does_not_wait_for_who_only_looked(serve: Serve) -> None:
    async with (
        serve(MOCK, admin_key=Secret(KEY)) as running,
        connected_to(running) as client,
    ):
        await client.send(get("/admin/tree", f"authorization: Bearer {KEY}"))
        assert (await client.answer()).status == 200
        with trio.fail_after(25):
            await running.gateway.drain(30)


@pytest.mark.parametrize("path", ["/admin", "/administrator", "/%61dmin", "//admin/x"])
async def test_paths_that_only_look_like_theirs_are_the_clients(
    serve: Serve, path: str
) -> None:
    async with serve(MOCK, admin_key=Secret(KEY)) as running:
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            await stream.send_all(head("GET", path, 0))
            answer = parse(b"".join([piece async for piece in stream]))
    assert answer.status == 404
    assert "there is no" in answer.json["error"]["message"]
