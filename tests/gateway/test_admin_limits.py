"""Rate limits by the operators' route, over real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from atomr_infer.config.node import NodeConfig
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.rate_limits import OnLimit, RateLimits
from atomr_infer.model.secret import Secret
from tests.gateway.http import chat, head, parse

if TYPE_CHECKING:
    from tests.gateway.conftest import Running, Serve

ADMIN = Secret("adm-0123456789")


def limited(**limits: Any) -> Deployment:
    rate_limits = RateLimits(requests_per_minute=2, **limits)
    return Deployment(name="m", runtime="mock", rate_limits=rate_limits)


async def shown(running: Running) -> Any:
    stream = await trio.open_tcp_stream("127.0.0.1", running.port)
    async with stream:
        key = f"Bearer {ADMIN.reveal()}"
        await stream.send_all(head("GET", "/admin/limits", 0, authorization=key))
        return parse(b"".join([piece async for piece in stream])).json


async def test_a_client_is_told_when_to_come_again_and_an_operator_why(
    serve: Serve,
) -> None:
    async with serve(limited(on_exceeded=OnLimit.REJECT), admin_key=ADMIN) as running:
        answers = [await chat(running.port, model="m") for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        refused = answers[2]
        assert 55 <= int(refused.headers["retry-after"]) <= 61
        assert refused.json["error"]["code"] == "rate_limit_exceeded"
        assert await shown(running) == {
            "node": NodeConfig().own_name,
            "limits": [
                {
                    "owner": "mock, model m",
                    "counts": "requests_per_minute",
                    "limit": 2,
                    "window_s": 60.0,
                    "used": 2,
                    "waiting": 0,
                    "mode": "escrow",
                    "withheld": 0.0,
                    "told": None,
                    "shadow_refusals": None,
                    "nodes": [],
                    "account": "no key",
                    "name": "mock, model m",
                }
            ],
        }


async def test_a_shadow_lets_everybody_through_and_counts(serve: Serve) -> None:
    async with serve(limited(shadow=True), admin_key=ADMIN) as running:
        answers = [await chat(running.port, model="m") for _ in range(5)]
        assert [answer.status for answer in answers] == [200] * 5
        [limit] = (await shown(running))["limits"]
        assert (limit["used"], limit["shadow_refusals"]) == (2, 3)
