"""A budget that is spent, in each dialect's words."""

from __future__ import annotations

import json

from atomr_infer.errors import BudgetExceededError
from atomr_infer.wire.anthropic import error_body as anthropic
from atomr_infer.wire.gemini import error_body as gemini
from atomr_infer.wire.openai import error_body as openai

TEXT = "team web has a budget of $10 per day; $0 of it is left"
SPENT = BudgetExceededError(TEXT, code="budget_exceeded")


def test_openais_clients_get_a_402_that_says_what_is_spent() -> None:
    answer = openai.answer(SPENT)
    assert (answer.status, answer.headers) == (402, ())
    assert json.loads(answer.body)["error"] == {
        "message": TEXT,
        "type": "insufficient_quota",
        "param": None,
        "code": "budget_exceeded",
    }


def test_anthropics_clients_get_a_billing_error() -> None:
    answer = anthropic.answer(SPENT, "req_1")
    assert (answer.status, answer.headers) == (402, ())
    assert json.loads(answer.body)["error"] == {
        "type": "billing_error",
        "message": TEXT,
    }


def test_googles_clients_get_what_is_exhausted_and_why() -> None:
    answer = gemini.answer(SPENT)
    assert (answer.status, answer.headers) == (402, ())
    error = json.loads(answer.body)["error"]
    assert (error["code"], error["status"]) == (402, "RESOURCE_EXHAUSTED")
    assert error["details"][0]["reason"] == "BUDGET_EXCEEDED"
