"""What all nodes together have spent of a budget, and what is left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atomr_infer.cli.asking import nodes
from atomr_infer.cli.asking.operators import Where
from atomr_infer.cli.asking.status import print_status
from atomr_infer.cli.asking.whole_budgets import whole_budgets
from atomr_infer.model.secret import Secret

GATEWAY = Where("http://127.0.0.1:1", Secret("adm-0123456789"), all_nodes=True)


def told(spent: int, aside: int, reserved: int = 0) -> dict[str, Any]:
    """What a node tells of $10 of which others and it have taken ``spent + aside``."""
    return {
        "owner": "deployment m",
        "name": "deployment m",
        "budget": "$10 per month",
        "ledger": "deployment m/usd/month/2026-11",
        "unit": "microusd",
        "limit": 10_000_000,
        "spent": spent,
        "remaining": 10_000_000 - spent,
        "reserved": reserved,
        "set_aside": aside,
        "overrun": 0,
        "problem": None,
    }


def test_what_nodes_have_set_aside_is_left() -> None:
    # All know that 3,000,000 are taken: 100,000 and 200,000 lie idle.
    [whole] = whole_budgets(
        {"a": [told(2_900_000, 100_000, 50_000)], "b": [told(2_800_000, 200_000)]}
    )
    assert whole == {
        "owner": "deployment m",
        "name": "deployment m",
        "budget": "$10 per month",
        "ledger": "deployment m/usd/month/2026-11",
        "unit": "microusd",
        "limit": 10_000_000,
        "spent": 2_650_000,
        "reserved": 50_000,
        "remaining": 7_300_000,
        "nodes": {
            "a": {"set_aside": 100_000, "reserved": 50_000},
            "b": {"set_aside": 200_000, "reserved": 0},
        },
    }


def test_a_node_that_has_not_heard_yet_changes_nothing() -> None:
    [whole] = whole_budgets({"a": [told(2_900_000, 100_000)], "b": [told(0, 0)]})
    assert (whole["spent"], whole["remaining"]) == (2_900_000, 7_100_000)


def test_a_budget_whose_state_is_unknown_somewhere_is_that_of_the_others() -> None:
    unknown = {"owner": "deployment m", "budget": "$10 per month", "problem": "x"}
    [whole] = whole_budgets({"a": [unknown], "b": [told(1_000_000, 0)]})
    assert (whole["spent"], list(whole["nodes"])) == (1_000_000, ["b"])
    assert whole_budgets({"a": [unknown]}) == []


def _answers(*budgets: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "ready": True,
        "ending": [],
        "away": [],
        "problems": [],
        "deployments": [],
        "limits": [],
    }
    return {
        name: {"status": 200, "answer": {**plain, "node": name, "budgets": [each]}}
        for name, each in zip("ab", budgets, strict=True)
    }


def test_status_of_all_nodes_begins_with_the_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = _answers(told(2_900_000, 100_000, 50_000), told(2_800_000, 200_000))
    answers["c"] = {"status": 502, "answer": {"error": {"message": "it is away"}}}
    monkeypatch.setattr(nodes, "ask_all", lambda *_, **__: answers)
    with pytest.raises(SystemExit):  # one node could not be asked
        print_status(GATEWAY, as_json=False)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[:3] == [
        ["[all", "nodes", "together]"],
        ["budget", "of", "how", "much", "spent", "running", "left", "of"],
        ["deployment", "m", "$10", "per", "month", "$2.65", "$0.05", "$7.3", "$10"],
    ]
    assert ["deployment", "m", "$10", "per", "month", "$2.9", "$7.1", "$0.1"] in shown


def test_status_of_all_nodes_as_json_has_the_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = _answers(told(2_900_000, 100_000), told(2_800_000, 200_000))
    monkeypatch.setattr(nodes, "ask_all", lambda *_, **__: answers)
    print_status(GATEWAY, as_json=True)
    out = json.loads(capsys.readouterr().out)
    assert list(out) == ["budgets", "nodes"]
    [whole] = out["budgets"]
    assert (whole["spent"], whole["remaining"]) == (2_700_000, 7_300_000)
    assert out["nodes"]["b"]["answer"]["budgets"][0]["set_aside"] == 200_000
