"""Budgets by the operators' routes, over real sockets."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.model.budget import Budget, Per
from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.model.prices import Price, Rates
from atomr_infer.model.secret import Secret
from tests.gateway.http import Answer, chat, request

if TYPE_CHECKING:
    from tests.gateway.conftest import Running, Serve

ADMIN = "adm-0123456789"
SMALL = Deployment(
    name="m", runtime="mock", budget=(Budget(per=Per.MONTH, tokens=1_000),)
)


async def admin(running: Running, method: str, path: str, body: Any = None) -> Answer:
    data = b"" if body is None else json.dumps(body).encode()
    authorization = f"Bearer {ADMIN}"
    return await request(
        running.port, method, f"/admin/{path}", data, authorization=authorization
    )


async def test_a_budget_is_shown_as_it_stands(serve: Serve) -> None:
    async with serve(SMALL, admin_key=Secret(ADMIN)) as running:
        assert (await chat(running.port, max_tokens=50)).status == 200
        answer = await admin(running, "GET", "budgets")
        [budget] = answer.json["budgets"]
        assert budget.pop("ledger").startswith("deployment m/tokens/month/")
        spent = budget.pop("spent")
        assert 0 < spent < 50
        # Alone it takes more than it was asked for, too: that is still there.
        assert 0 < budget.pop("set_aside") <= 1_000 - spent
        assert budget == {
            "owner": "deployment m",
            "name": "deployment m",
            "budget": "1,000 tokens per month",
            "unit": "tokens",
            "limit": 1_000,
            "remaining": 1_000 - spent,
            "reserved": 0,
            "overrun": 0,
            "problem": None,
        }


async def test_what_a_lost_ledger_held_is_inherited(serve: Serve) -> None:
    async with serve(SMALL, admin_key=Secret(ADMIN)) as running:
        assert (await chat(running.port, max_tokens=50)).status == 200
        shown = await admin(running, "GET", "budgets")
        ledger = shown.json["budgets"][0]["ledger"]
        order = {"ledger": ledger, "spent": {"a/0123": 5}}
        answer = await admin(running, "POST", "budgets/reclaim", order)
        # Nobody has heard of it: there is nothing to be had.
        assert (answer.status, answer.json["units"]) == (200, 0)


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ({"ledger": "x", "spent": {"a/0": 1}}, 404, "budget_not_found"),
        ({"ledger": "x", "spent": {"a/0": -1}}, 400, "invalid_value"),
        ({"ledger": "x"}, 400, "invalid_value"),
        ({"ledger": "x", "spent": {}, "lost": []}, 400, "invalid_value"),
        ([], 400, "invalid_value"),
    ],
)
async def test_what_cannot_be_inherited_is_refused(
    serve: Serve, order: object, status: int, code: str
) -> None:
    async with serve(SMALL, admin_key=Secret(ADMIN)) as running:
        answer = await admin(running, "POST", "budgets/reclaim", order)
        assert (answer.status, answer.json["error"]["code"]) == (status, code)


async def test_a_ledger_that_is_in_use_is_not_inherited(serve: Serve) -> None:
    async with serve(SMALL, admin_key=Secret(ADMIN)) as running:
        assert (await chat(running.port, max_tokens=50)).status == 200
        shown = await admin(running, "GET", "budgets")
        ledger = shown.json["budgets"][0]["ledger"]
        server = running.cluster._serving.budgets.service._server
        assert server is not None
        mine = server.core.account(ledger).ledger.ledger
        order = {"ledger": ledger, "spent": {mine: 5}}
        answer = await admin(running, "POST", "budgets/reclaim", order)
        assert (answer.status, answer.json["error"]["code"]) == (409, "not_reclaimed")
        assert mine in answer.json["error"]["message"]


async def test_what_was_used_is_exact_in_dollars_and_rounded_once(serve: Serve) -> None:
    price = Price(rates=Rates(input=Decimal(0), output=Decimal("0.2")))
    script: dict[str, OptionValue] = {"reply": "one two three"}
    priced = Deployment(name="m", runtime="mock", price=price, options=script)
    async with serve(priced, admin_key=Secret(ADMIN)) as running:
        assert (await chat(running.port)).status == 200
        answer = await admin(running, "GET", "usage/deployment/0")
        [used] = answer.json["usage"]
        assert (used["usd"], used["microusd"]) == ("0.0000006", 1)


async def test_a_budget_and_the_usage_tell_the_same_sum(serve: Serve) -> None:
    price = Price(rates=Rates(input=Decimal(0), output=Decimal("0.1")))
    script: dict[str, OptionValue] = {"reply": "one two three"}
    priced = Deployment(
        name="m",
        runtime="mock",
        price=price,
        options=script,
        budget=Budget(per=Per.DAY, usd=1),
    )
    async with serve(priced, admin_key=Secret(ADMIN)) as running:
        for _ in range(4):
            assert (await chat(running.port, max_tokens=50)).status == 200
        [used] = (await admin(running, "GET", "usage/deployment/0")).json["usage"]
        [budget] = (await admin(running, "GET", "budgets")).json["budgets"]
        # Four times 0.3 microdollars, rounded up as a sum.
        assert (used["usd"], used["microusd"]) == ("0.0000012", 2)
        assert budget["spent"] == 2
