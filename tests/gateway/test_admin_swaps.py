"""Operators have a deployment taken over, look at it, and have it go back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from tests.gateway.http import request, until

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve
    from tests.gateway.http import Answer

KEY = "adm-0123456789"
OLD = Deployment(name="m", runtime="mock", options={"reply": "old"})
NEW: dict[str, Any] = {"name": "m", "runtime": "mock", "options": {"reply": "new"}}
AT_ONCE: dict[str, Any] = {"steps": [], "step_s": 0, "min_requests": 0}
FOR_LONG: dict[str, Any] = {"steps": [0.5], "step_s": 60}


async def admin(port: int, method: str, path: str, **body: Any) -> Answer:
    told = json.dumps(body).encode() if body else b""
    return await request(port, method, path, told, authorization=f"Bearer {KEY}")


async def test_a_deployment_is_taken_over_and_its_swap_is_shown(serve: Serve) -> None:
    async with serve(OLD, admin_key=Secret(KEY)) as running:
        port, swaps = running.port, running.cluster.hot_swaps
        body = {"deployment": NEW, "plan": AT_ONCE}
        begun = await admin(port, "POST", "/admin/swaps/m", **body)
        assert (begun.status, begun.json["swap"]["deployment"]) == (201, "m")
        await until(lambda: swaps.statuses()[0].phase.value == "swapped")
        shown = (await admin(port, "GET", "/admin/swaps")).json["swaps"]
        status = (await admin(port, "GET", "/admin/status")).json
        reply = await running.cluster.chat("m", "hello")
    assert reply.text == "new"
    assert shown == status["swaps"]
    assert shown == [
        {
            "deployment": "m",
            "phase": "swapped",
            "share": 1.0,
            "requests": 0,
            "failures": 0,
            "reason": "",
            "node": status["node"],
            "id": begun.json["swap"]["id"],
        }
    ]


async def test_a_swap_is_told_to_go_back(serve: Serve) -> None:
    async with serve(OLD, admin_key=Secret(KEY)) as running:
        port, swaps = running.port, running.cluster.hot_swaps
        body = {"deployment": NEW, "plan": FOR_LONG}
        await admin(port, "POST", "/admin/swaps/m", **body)
        again = await admin(port, "POST", "/admin/swaps/m", **body)
        assert (again.status, again.json["error"]["code"]) == (409, "cannot_now")
        await until(lambda: swaps.statuses()[0].phase.value == "shifting")
        gone = await admin(port, "DELETE", "/admin/swaps/m")
        assert (gone.status, gone.json["cancelled"]) == (200, True)
        assert gone.json["id"] == swaps.statuses()[0].id
        await until(lambda: swaps.statuses()[0].phase.value == "rolled back")
        late = await admin(port, "DELETE", "/admin/swaps/m")
        assert (late.status, late.json["error"]["code"]) == (404, "swap_not_found")
        assert (await running.cluster.chat("m", "hello")).text == "old"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"plan": {}}, 'the body is not {"deployment"'),
        ({"deployment": NEW, "plans": {}}, 'the body is not {"deployment"'),
        ({"deployment": NEW, "plan": {"step": 1}}, "nothing reads 'step'"),
        ({"deployment": NEW, "plan": {"steps": [2.0]}}, "must rise"),
        ({"deployment": NEW, "plan": {"steps": 3}}, "plan: "),
        ({"deployment": {**NEW, "name": "x"}}, "the body is of 'x'"),
        ({"deployment": [1]}, "the body is no JSON of tables"),
    ],
)
async def test_what_asks_for_nothing_that_could_be_is_refused(
    serve: Serve, body: dict[str, Any], problem: str
) -> None:
    async with serve(OLD, admin_key=Secret(KEY)) as running:
        answer = await admin(running.port, "POST", "/admin/swaps/m", **body)
    assert (answer.status, answer.json["error"]["code"]) == (400, "cannot_work")
    assert problem in answer.json["error"]["message"]
