"""What no judge can read refuses an answer, and breaks no request."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio

from atomr_infer.errors import UpstreamError
from atomr_infer.model.asks import FormatKind, ResponseFormat
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    TokenChunk,
)
from atomr_infer.pipeline.cascades.cascade import InferenceCascade
from atomr_infer.pipeline.cascades.judges import Judges
from atomr_infer.pipeline.cascades.judging import judge
from atomr_infer.pipeline.cascades.options import CascadeOptions, CascadeStage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.runtimes.others import Asking, Others

BATCH = ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, "q"),))
TREE = b'{"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}'
FORM = ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=TREE, name="tree")


def said(text: str, logprobs: bytes | None = None) -> list[TokenChunk]:
    return [
        TokenChunk(text=text, logprobs=logprobs),
        TokenChunk(finish_reason=FinishReason.STOP),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "json"),
        ("[" * 100_000 + "]" * 100_000, "json"),
        ("[" * 900 + "]" * 900, None),
        ('"\ud800"', "json"),
        ('"\U0001f600"', None),
    ],
    ids=["open", "too deep", "deep", "half a pair", "a pair"],
)
def test_json_that_cannot_be_read_is_refused(text: str, why: str | None) -> None:
    stage = CascadeStage(model="m", json=True)

    assert judge(stage, BATCH, said(text)) == why
    asked = attrs.evolve(BATCH, response_format=FORM)
    assert judge(stage, asked, said(text)) == why


@pytest.mark.parametrize(
    ("logprobs", "why"),
    [
        (b'{"content": [{"logprob": -0.5}, {"logprob": null}, {"token": "a"}]}', None),
        (b'{"content": [{"logprob": -1.5}]}', "logprob=-1.500"),
        (b'{"content": [{"logprob": null}]}', "logprob=none"),
        (b'{"content": [0.5]}', "logprob=none"),
        (b"[-0.5]", "logprob=none"),
        (b"no json", "logprob=none"),
        (b"null", "logprob=none"),
    ],
)
def test_a_model_that_does_not_say_how_sure_it_is_is_refused(
    logprobs: bytes, why: str | None
) -> None:
    stage = CascadeStage(model="m", min_logprob=-1.0)

    assert judge(stage, BATCH, said("x", logprobs)) == why


@attrs.define(eq=False)
class Answer:
    """Chunks, or none at all, and an error in the end, or none."""

    error: UpstreamError | None = None
    left: list[TokenChunk] = attrs.field(factory=list)

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> TokenChunk:
        await trio.lowlevel.checkpoint()
        if self.left:
            return self.left.pop(0)
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()

    def judge(self, verdict: str) -> None:
        assert verdict in ("refused: finish=none", "refused: matches")


class Models:
    """Who is asked: one answer for each."""

    def __init__(self, *answers: Answer) -> None:
        self.answers: Iterator[Answer] = iter(answers)

    def generate(self, _: ExecuteBatch) -> Answer:
        return next(self.answers)


@pytest.mark.parametrize(
    ("exhausted", "last", "told"),
    [
        ("answer", UpstreamError("it is down"), "it is down"),
        ("error", None, "no answer was accepted; large: finish=none"),
    ],
)
async def test_an_answer_of_nothing_at_all_is_none_to_be_given(
    exhausted: str, last: UpstreamError | None, told: str
) -> None:
    options = CascadeOptions(stages=("small", "large"), exhausted=exhausted)
    runner = InferenceCascade(options, cast("Others", None), Judges(options.stages))
    asking = cast("Asking", Models(Answer(), Answer(last)))

    with pytest.raises(UpstreamError, match=told):
        async with aclosing(runner._chunks(BATCH, asking)) as chunks:
            async for chunk in chunks:
                pytest.fail(f"it gives {chunk}")


@pytest.mark.parametrize("last", [UpstreamError("it is down"), None])
async def test_an_answer_is_given_though_a_later_stage_said_nothing(
    last: UpstreamError | None,
) -> None:
    never = "^never"
    stages = (
        CascadeStage(model="small", matches=never),
        CascadeStage(model="middle", matches=never),
        "large",
    )
    options = CascadeOptions(stages=stages, exhausted="answer")
    runner = InferenceCascade(options, cast("Others", None), Judges(options.stages))
    asking = cast("Asking", Models(Answer(left=said("hello")), Answer(), Answer(last)))

    async with aclosing(runner._chunks(BATCH, asking)) as chunks:
        given = [chunk async for chunk in chunks]

    assert "".join(chunk.text for chunk in given) == "hello"
    [warning] = given[0].warnings
    assert warning.startswith("small was refused (matches)")
