"""The specialist that a request is for, and others where that fails."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr_infer.config.validate import validate_deployments
from atomr_infer.errors import ConfigError, ContentFilterError, UpstreamError
from atomr_infer.model.asks import Tool
from atomr_infer.model.deployment import Deployment
from atomr_infer.pipeline.routing.gating import RouterOptions
from tests.pipeline.conftest import Heard, OpenTree, model

if TYPE_CHECKING:
    from trio.testing import MockClock

CODE = {"model": "code", "label": "code", "matches": r"\bdef\b"}
LAW = {"model": "law", "label": "law"}
ART = {"model": "art", "label": "art"}


def router(*routes: Any, **options: Any) -> Deployment:
    members = {"routes": list(routes), "default": "general", **options}
    return Deployment(name="auto", runtime="router", options=members)


def models(**broken: Any) -> list[Deployment]:
    names = ("code", "law", "art", "general", "gate")
    return [
        model(name, **{"reply": f"{name} says so", **broken.get(name, {})})
        for name in names
    ]


@pytest.mark.parametrize(
    ("text", "more", "verdicts"),
    [
        ("what does def do", {}, ["code"]),
        ("what is a definition", {}, ["general"]),
        ("x" * 100, {}, ["law"]),
        ("x" * 201, {}, ["general"]),
        ("x", {"tools": (Tool(name="t"),)}, ["art"]),
    ],
)
async def test_rules_say_whom_a_request_is_for(
    open_tree: OpenTree, text: str, more: dict[str, Any], verdicts: list[str]
) -> None:
    routes = (
        {"model": "code", "matches": r"\bdef\b"},
        {"model": "law", "min_chars": 100, "max_chars": 200},
        {"model": "art", "tools": True},
    )
    tools = {"art": {"tool_calls": [{"name": "t"}]}}
    async with open_tree(*models(**tools), router(*routes)) as tree:
        heard = await tree.ask(text, **more)
        assert [name for name, _ in tree.ledger()] == verdicts
    assert heard.text == f"{verdicts[-1]} says so"
    assert heard.verdicts == verdicts


@pytest.mark.parametrize(
    ("gate", "reply", "verdicts"),
    [
        ({"model": "gate"}, "Law.", ["gate (gate: law)", "law"]),
        ({"model": "gate"}, "no idea", ["gate (gate: no label)", "general"]),
        ({"model": "gate"}, "x\r\nforged", ["gate (gate: no label)", "general"]),
        ("python:tests.pipeline.validators:says_law", "", ["law"]),
        ("python:tests.pipeline.validators:says_law_as_an_object", "", ["law"]),
        ("python:tests.pipeline.validators:scores", "", ["law"]),
        ("python:tests.pipeline.validators:chooses_nothing", "", ["general"]),
    ],
)
async def test_a_gate_says_whom_a_request_is_for_when_no_rule_does(
    open_tree: OpenTree, gate: Any, reply: str, verdicts: list[str]
) -> None:
    made = models(gate={"reply": reply})
    async with open_tree(*made, router(CODE, LAW, ART, gate=gate)) as tree:
        heard = await tree.ask("one two")
        by_rule = await tree.ask("def two")
    assert heard.verdicts == verdicts
    assert by_rule.verdicts == ["code"]


async def test_a_gate_that_fails_or_hangs_chooses_nobody(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    gate = {"model": "gate", "timeout_s": 3.0}
    for broken in ({"fail_after": 0}, {"hang_after": 0}):
        made = models(gate=broken)
        async with open_tree(*made, router(CODE, LAW, gate=gate)) as tree:
            heard = await tree.ask("one two")
            assert tree.runners["gate"].active == 0
        assert heard.verdicts == ["gate (gate failed)", "general"]


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
async def test_a_gate_that_raises_is_one_line_and_its_traceback_is_for_debugging(
    open_tree: OpenTree, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    made = router(CODE, LAW, gate="python:tests.pipeline.validators:chooses_nothing")
    async with open_tree(*models(), made) as tree:
        with caplog.at_level(level, "atomr_infer.pipeline"):
            heard = await tree.ask("one two")
    told, *more = [r for r in caplog.records if "the gate" in r.getMessage()]

    assert heard.verdicts == ["general"]
    assert re.fullmatch(
        r"the gate python:tests\.pipeline\.validators:chooses_nothing failed "
        r"\(ValueError at validators\.py:\d+\); nobody is chosen",
        told.getMessage(),
    )
    assert (told.levelname, told.exc_info) == ("WARNING", None)
    assert [bool(r.exc_info) for r in more] == [True] * (level == "DEBUG")


async def test_when_the_best_fails_the_next_best_is_asked_and_then_the_default(
    open_tree: OpenTree,
) -> None:
    gate = "python:tests.pipeline.validators:scores"
    options: dict[str, Any] = {"gate": gate, "top_k": 2, "threshold": 0.3}
    failing = {"fail_after": 0}
    routes = ({"model": "code", "label": "code"}, LAW, ART)
    async with open_tree(*models(law=failing), router(*routes, **options)) as tree:
        heard = await tree.ask("one two")
        assert heard.verdicts == ["law (failed)", "art"]
    made = models(law=failing, art=failing)
    async with open_tree(*made, router(*routes, **options)) as tree:
        heard = await tree.ask("one two")
        assert heard.verdicts == ["law (failed)", "art (failed)", "general"]
    made = models(law=failing, art=failing, general=failing)
    async with open_tree(*made, router(*routes, **options)) as tree:
        with pytest.raises(UpstreamError):
            await tree.ask("one two")
        # Each was asked once: a router is not made again.
        asked = [len(tree.runners[n].batches) for n in ("code", "law", "art")]
        assert asked == [0, 1, 1]


async def test_what_was_begun_or_withheld_is_not_asked_of_others(
    open_tree: OpenTree,
) -> None:
    heard = Heard()
    withheld = {"fail_after": 0, "fail_kind": "content_filter"}
    async with open_tree(*models(code={"fail_after": 1}), router(CODE)) as tree:
        with pytest.raises(UpstreamError):
            await tree.ask("def", heard=heard)
        assert tree.runners["general"].batches == ()
    assert heard.text == "code"
    async with open_tree(*models(code=withheld), router(CODE)) as tree:
        with pytest.raises(ContentFilterError):
            await tree.ask("def")


@pytest.mark.parametrize("where", ["gate", "law"])
async def test_a_client_that_leaves_ends_the_gate_or_the_specialist(
    open_tree: OpenTree, autojump_clock: MockClock, where: str
) -> None:
    hangs = {"hang_after": 1, "reply": "law x"}
    made = models(**{"gate": {"reply": "law"}, where: hangs})
    gate = {"model": "gate", "timeout_s": 60.0}
    async with open_tree(*made, router(CODE, LAW, gate=gate)) as tree:
        with trio.move_on_after(5.0) as scope:
            await tree.ask("one two")
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert all(runner.active == 0 for runner in tree.runners.values())
        paid = [name for name, _ in tree.ledger()]
    assert paid == (["gate"] if where == "gate" else ["gate", "law"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"routes": [LAW]}, "no request is for 'law'"),
        (
            {"routes": [{"model": "law", "min_chars": 1}], "gate": {"model": "gate"}},
            "no route has a label",
        ),
        ({"routes": [LAW], "gate": "gates.choose"}, "is not of the form python:"),
        (
            {"routes": [LAW], "gate": "python:json:nothing"},
            "gate 'python:json:nothing'",
        ),
        ({"routes": [CODE], "default": "nobody"}, "the model 'nobody' does not exist"),
        ({"routes": [CODE], "default": "auto"}, "it would ask itself: auto -> auto"),
    ],
)
def test_a_router_that_cannot_be_meant_is_refused(
    options: dict[str, Any], told: str
) -> None:
    members = {"default": "code", **options}
    auto = Deployment(name="auto", runtime="router", options=members)
    names = ("code", "law", "gate")
    others = [Deployment(name=name, runtime="mock") for name in names]

    with pytest.raises(ConfigError, match=told):
        validate_deployments([*others, auto])


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ({"law": -0.5, "art": -3.0, "tax": 9.0}, ("law",)),
        ({"law": float("nan")}, ()),
        ({}, ()),
    ],
)
def test_a_label_without_a_score_is_not_chosen_however_low_the_threshold(
    scores: dict[str, float], chosen: tuple[str, ...]
) -> None:
    routes = [{"model": name, "label": name} for name in ("code", "law", "art")]
    options = RouterOptions(
        routes=routes, default="d", gate="python:a:b", threshold=-2.0, top_k=3
    )

    assert options.by_scores(scores) == chosen
