"""Deployments by the operators' routes, over real sockets, on a node without others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr_infer.model.deployment import Deployment
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.secret import Secret
from atomr_infer.serving.limits.limiter import RateGate
from tests.gateway.http import Answer, chat, head, parse, request

if TYPE_CHECKING:
    from tests.gateway.conftest import Running, Serve

ADMIN = Secret("adm-0123456789")
MOCK = Deployment(name="m", runtime="mock")


async def admin(
    running: Running, method: str, path: str, body: object = None
) -> Answer:
    sent = b"" if body is None else json.dumps(body).encode()
    headers: dict[str, str] = {"authorization": f"Bearer {ADMIN.reveal()}"}
    if method != "POST":
        headers["content-length"] = str(len(sent))
    stream = await trio.open_tcp_stream("127.0.0.1", running.port)
    async with stream:
        whole = head(method, f"/admin/placement{path}", len(sent), **headers) + sent
        await stream.send_all(whole)
        return parse(b"".join([piece async for piece in stream]))


async def shown(running: Running, path: str = "") -> list[Any]:
    answer = await admin(running, "GET", path)
    assert answer.status == 200
    found: list[Any] = answer.json["deployments"]
    return found


async def test_a_node_without_others_shows_its_deployments(serve: Serve) -> None:
    async with serve(MOCK, admin_key=ADMIN) as running:
        answer = await admin(running, "GET", "")
        [node] = answer.json["nodes"]
        assert node["name"] == answer.json["node"]
        assert "mock" in node["runtimes"]
        [deployment] = answer.json["deployments"]
        assert deployment == {
            "name": "m",
            "runtime": "mock",
            "runtime_because": "",
            "serves": ["m"],
            "state": "serving",
            "reason": "",
            "replicas": 1,
            "everywhere": False,
            "missing": 0,
            "revision": 0,
            "by": "",
            "nodes": [
                {
                    "node": node["name"],
                    "state": "serving",
                    "replicas": 1,
                    "serving": 1,
                    "gpus": [],
                    "reason": "",
                    "in_sight": True,
                }
            ],
            "passed": [],
            "conflicts": [],
        }


async def test_a_deployment_comes_is_scaled_changed_and_goes(serve: Serve) -> None:
    table = {"name": "new", "runtime": "mock", "serves": ["new", "newer"]}
    async with serve(MOCK, admin_key=ADMIN) as running:
        answer = await admin(running, "POST", "", table)
        assert (answer.status, answer.json) == (
            201,
            {"deployment": "new", "deployed": True},
        )
        await until_serving(running, "new", replicas=1)
        assert (await chat(running.port, model="newer")).status == 200
        answer = await admin(running, "PUT", "/new/replicas", {"replicas": 2})
        assert answer.json == {"deployment": "new", "scaled": True}
        await until_serving(running, "new", replicas=2)
        answer = await admin(running, "PUT", "/new", {**table, "serves": ["other"]})
        assert answer.json == {"deployment": "new", "changed": True}
        assert (await chat(running.port, model="newer")).status == 404
        assert [each["name"] for each in await shown(running, "/other")] == ["new"]
        answer = await admin(running, "DELETE", "/new")
        assert answer.json == {"deployment": "new", "removed": True}
        assert [each["name"] for each in await shown(running)] == ["m"]


async def until_serving(running: Running, name: str, *, replicas: int) -> None:
    with trio.fail_after(20):
        while True:
            [found] = await shown(running, f"/{name}")
            if found["nodes"][0]["serving"] == replicas:
                return


async def test_a_dry_run_says_where_and_changes_nothing(serve: Serve) -> None:
    async with serve(MOCK, admin_key=ADMIN) as running:
        table = {"name": "new", "runtime": "mock", "serving": {"replicas": 2}}
        answer = await admin(running, "POST", "/explain", table)
        [node] = answer.json["nodes"]
        assert (answer.json["name"], node["replicas"]) == ("new", 2)
        assert [each["name"] for each in await shown(running)] == ["m"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "problem"),
    [
        ("POST", "", {"name": "x"}, 400, "runtime is missing"),
        ("POST", "", {"name": "x", "runtime": "moc"}, 400, "did you mean 'mock'"),
        ("POST", "", {"name": "x", "runtime": "mock", "serve": []}, 400, "'serves'?"),
        ("POST", "", {"name": "m", "runtime": "mock"}, 400, "exists already"),
        ("POST", "", [1], 400, "the body is no JSON object"),
        ("POST", "/explain", {"name": "x", "runtime": "no"}, 400, "'no'"),
        ("PUT", "/m", {"name": "x", "runtime": "mock"}, 400, "the path of 'm'"),
        ("PUT", "/x", {"name": "x", "runtime": "mock"}, 400, "there is no deployment"),
        ("PUT", "/m/replicas", {"replicas": 0}, 400, "replicas: 0 must be at least 1"),
        ("PUT", "/m/replicas", {"replica": 1}, 400, 'is not {"replicas": N}'),
        ("PUT", "/m/replicas", {"replicas": 1, "x": 1}, 400, 'is not {"replicas": N}'),
        ("PUT", "/x/replicas", {"replicas": 1}, 400, "there is no deployment 'x'"),
        ("DELETE", "/x", None, 404, "there is no deployment 'x'"),
        ("GET", "/x", None, 404, "there is no deployment and no model 'x'"),
    ],
)
async def test_what_cannot_work_is_refused_with_the_reason(
    serve: Serve, method: str, path: str, body: object, status: int, problem: str
) -> None:
    async with serve(MOCK, admin_key=ADMIN) as running:
        answer = await admin(running, method, path, body)
        assert answer.status == status
        assert problem in answer.json["error"]["message"]
        assert [each["name"] for each in await shown(running)] == ["m"]


async def test_what_cannot_be_done_now_is_told_from_what_never_can(
    serve: Serve,
) -> None:
    slow = {"name": "new", "runtime": "mock", "options": {"load_s": 30.0}}
    async with serve(MOCK, admin_key=ADMIN) as running:
        assert (await admin(running, "POST", "", slow)).status == 201
        answer = await admin(running, "PUT", "/new/replicas", {"replicas": 2})
        assert (answer.status, answer.json["error"]["code"]) == (409, "cannot_now")
        assert "new is loading" in answer.json["error"]["message"]
        answer = await admin(running, "DELETE", "/new")
        assert answer.json == {"deployment": "new", "removed": True}


async def test_a_limit_above_what_its_provider_tells_is_a_conflict(
    serve: Serve,
) -> None:
    limited = attrs.evolve(MOCK, rate_limits=RateLimits(requests_per_minute=600))
    problem = (
        "requests_per_minute = 600 is above the 50 that its provider tells; so many"
        " are kept"
    )
    async with serve(limited, admin_key=ADMIN) as running:
        [gate] = running.cluster._serving.gates.of_attempts["m"]
        assert isinstance(gate, RateGate)
        gate.hear({"anthropic-ratelimit-requests-limit": "50"})
        [deployment] = await shown(running)
        assert deployment["conflicts"] == [problem]
        key = f"Bearer {ADMIN.reveal()}"
        status = await request(running.port, "GET", "/admin/status", authorization=key)
        assert status.json["problems"] == [f"deployment m: {problem}"]
        assert status.json["deployments"][0]["conflicts"] == [problem]
