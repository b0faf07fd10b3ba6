"""A cell falls where anything is wrong: what was heard, asked, billed or left."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from atomr_infer.model.cost import Cost
from atomr_infer.model.usage import Usage
from atomr_infer.serving.requests.served import Spent
from atomr_infer.testing.wall.heard import Heard, Reply, hear
from atomr_infer.testing.wall.judging import Observed, judge
from atomr_infer.testing.wall.scenarios import (
    FALLBACK_TEXT,
    FALLBACK_USAGE,
    PRIMARY_TEXT,
    Cell,
    Dialect,
    cells,
)

LOST = Usage(input_uncached=3, output_text=2, estimated=True, interrupted=True)


def cell(name: str, *, stream: bool = True) -> Cell:
    (found,) = [
        each
        for each in cells()
        if (each.scenario.name, each.dialect, each.provider, each.stream)
        == (name, Dialect.OPENAI, Dialect.OPENAI, stream)
    ]
    return found


TAKEN_OVER = Observed(
    heard=Heard(text=FALLBACK_TEXT, finish="stop", ended=True, usage=(17, 19)),
    status=200,
    served_by="fallback",
    asked={"primary": 2, "fallback": 1},
    spent=[Spent("fallback", "m", FALLBACK_USAGE)],
    cost=Cost(parts={"any": 17 * 3_000_000 + 19 * 5_000_000}),
    cost_told=None,
    stopped=1,
    held=0,
    open_upstream=0,
)
BROKEN_OFF = attrs.evolve(
    TAKEN_OVER,
    heard=Heard(text="The primary", error="the stream was cut", code="cut"),
    served_by="primary",
    asked={"primary": 1, "fallback": 0},
    spent=[Spent("primary", "m", LOST)],
    cost=Cost(parts={"any": 3 * 1_000_000 + 2 * 2_000_000}, estimated=True),
)


def test_answer_of_the_fallback_stands() -> None:
    verdict = judge(cell("primary 500"), TAKEN_OVER)
    assert (verdict.faults, verdict.outcome) == (
        (),
        "delivered by fallback (2+1 requests)",
    )


def test_front_part_with_an_error_behind_it_stands() -> None:
    verdict = judge(cell("cut after tokens"), BROKEN_OFF)
    assert (verdict.faults, verdict.outcome) == ((), "200 broken off (1+0 requests)")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"heard": {"ended": False}}, "silent truncation after"),
        ({"heard": {"finish": None}}, "silent truncation after"),
        ({"heard": {"text": "Another" + FALLBACK_TEXT}}, "the text is 'AnotherAn"),
        ({"heard": {"text": PRIMARY_TEXT}}, "the text is 'The primary"),
        ({"heard": {"usage": (17, 20)}}, "the client was told (17, 20)"),
        ({"heard": {"usage": None}}, "the client was told None"),
        ({"heard": {"faults": ["not JSON"]}}, "not JSON"),
        ({"heard": {"error": "no"}}, "broken off, not delivered"),
        ({"served_by": "primary"}, "answered by 'primary', not 'fallback'"),
        ({"asked": {"primary": 3, "fallback": 1}}, "primary was asked 3 times, not 2"),
        ({"asked": {"primary": 2, "fallback": 2}}, "fallback was asked 2 times"),
        ({"spent": []}, "the bill is []"),
        ({"spent": [Spent("primary", "m", FALLBACK_USAGE)]}, "the bill is [Spent("),
        (
            {"spent": [*TAKEN_OVER.spent, Spent("primary", "m", LOST)]},
            "1 lost attempts are billed, not 0",
        ),
        ({"spent": [*TAKEN_OVER.spent] * 2}, "the bill is [Spent("),
        ({"cost": None}, "the cost is None, not 146000000 pico-dollars"),
        ({"cost": Cost(parts={"any": 146_000_001})}, "the cost is Cost("),
        ({"stopped": 0}, "telemetry told 0 ends"),
        ({"held": 1}, "1 permits were not given back"),
        ({"open_upstream": 1}, "1 upstream answers were left open"),
    ],
)
def test_whatever_is_wrong_is_found(changes: dict[str, Any], fault: str) -> None:
    heard = attrs.evolve(TAKEN_OVER.heard, **changes.pop("heard", {}))
    observed = attrs.evolve(TAKEN_OVER, heard=heard, **changes)
    faults = judge(cell("primary 500"), observed).faults
    assert any(found.startswith(fault) for found in faults), faults


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"heard": Heard(text="The primary")}, "silent truncation after"),
        (
            {"heard": Heard(text="The primaryAnother", error="cut")},
            "the front part is 'The primaryAnother'",
        ),
        ({"spent": []}, "0 lost attempts are billed, not 1"),
        (
            {"spent": [Spent("primary", "m", attrs.evolve(LOST, output_text=0))]},
            "1 lost attempts are billed, not 1",
        ),
        (
            {
                "spent": [
                    Spent("primary", "m", LOST),
                    Spent("primary", "m", FALLBACK_USAGE),
                ]
            },
            "an answer that nobody got is billed",
        ),
    ],
)
def test_whatever_is_wrong_with_a_front_part_is_found(
    changes: dict[str, Any], fault: str
) -> None:
    observed = attrs.evolve(BROKEN_OFF, **changes)
    faults = judge(cell("cut after tokens"), observed).faults
    assert any(found.startswith(fault) for found in faults), faults


@pytest.mark.parametrize("told", [None, "0.000145", "0"])
def test_cost_that_a_whole_answer_does_not_tell_right_is_found(
    told: str | None,
) -> None:
    whole = cell("primary 500", stream=False)
    assert judge(whole, attrs.evolve(TAKEN_OVER, cost_told="0.000146")).faults == ()
    observed = attrs.evolve(TAKEN_OVER, cost_told=told)
    assert judge(whole, observed).faults == (
        f"the client was told that it cost {told}",
    )


@pytest.mark.parametrize(("status", "stands"), [(400, True), (502, False)])
def test_filter_may_be_said_in_words_alone(status: int, stands: bool) -> None:
    observed = attrs.evolve(
        BROKEN_OFF,
        heard=Heard(error="no"),
        status=status,
        spent=[],
        cost=Cost(),
    )
    assert (judge(cell("content filter"), observed).faults == ()) is stands


# --- hearing ----------------------------------------------------------------

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def reply(body: bytes, **changes: Any) -> Reply:
    whole = Reply(status=200, headers=EVENTS, body=body, complete=True)
    return attrs.evolve(whole, **changes)


OPENAI_END = (
    b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)


def test_whole_stream_has_no_fault() -> None:
    heard = hear(Dialect.OPENAI, reply(OPENAI_END), stream=True)
    assert heard == Heard(text="Hi", finish="stop", ended=True, usage=(1, 2))


@pytest.mark.parametrize(
    ("dialect", "said", "fault"),
    [
        (Dialect.OPENAI, reply(OPENAI_END[:-20]), "the stream ends inside of an event"),
        (Dialect.OPENAI, reply(OPENAI_END + b"data: {}\n\n"), "more after the end"),
        (Dialect.OPENAI, reply(OPENAI_END, complete=False), "the connection ended"),
        (Dialect.OPENAI, reply(OPENAI_END, timely=False), "the client was left wait"),
        (Dialect.OPENAI, reply(OPENAI_END, headers={}), "a stream of None"),
        (Dialect.OPENAI, reply(b"data: {\n\n"), "not JSON: b'{'"),
        (
            Dialect.OPENAI,
            reply(b'data: {"error":{"message":"x"}}\n\n'),
            "an error without type, param, code",
        ),
        (
            Dialect.OPENAI,
            reply(OPENAI_END.replace(b"null", b'"stop"')),
            "finished twice: stop, stop",
        ),
        (Dialect.OPENAI, reply(b"<html>", status=502), "not JSON: b'<html>'"),
        (Dialect.OPENAI, reply(b"{}", status=502), "an error in no dialect: {}"),
        (
            Dialect.OPENAI,
            reply(
                b'{"error":{"message":"Traceback ...","type":"","param":"","code":""}}',
                status=500,
            ),
            "an error with 'Traceback' in it",
        ),
        (Dialect.GEMINI, reply(b"data: [DONE]\n\n"), "[DONE] in another dialect"),
        (
            Dialect.ANTHROPIC,
            reply(b'data: {"type":"message_stop"}\n\n'),
            "event '' holds 'message_stop'",
        ),
        (
            Dialect.ANTHROPIC,
            reply(b'{"error":{"type":"api_error","message":"x"}}', status=500),
            "an error that does not say so",
        ),
    ],
)
def test_what_no_client_should_put_up_with_is_heard(
    dialect: Dialect, said: Reply, fault: str
) -> None:
    heard = hear(dialect, said, stream=True)
    assert any(found.startswith(fault) for found in heard.faults), heard
