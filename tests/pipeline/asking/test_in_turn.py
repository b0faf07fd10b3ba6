"""One model after the other is asked, until one begins to answer."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio

from atomr_infer.errors import (
    ContentFilterError,
    DeadlineError,
    InferenceError,
    InvalidRequestError,
    UpstreamError,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role, TokenChunk
from atomr_infer.pipeline.asking.in_turn import first_that_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.runtimes.others import Asking

BATCH = ExecuteBatch(
    request_id="r", model="auto", messages=(Message(Role.USER, "sing"),)
)
DOWN = UpstreamError("it is down")


@attrs.define(eq=False)
class Said:
    """One model's answer: texts, and an error in the end."""

    texts: list[str]
    error: InferenceError | None = None
    closed: int = 0

    def __aiter__(self) -> Said:
        return self

    async def __anext__(self) -> TokenChunk:
        await trio.lowlevel.checkpoint()
        if self.texts:
            return TokenChunk(text=self.texts.pop(0))
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.closed += 1


@attrs.define(eq=False)
class Models:
    """Who is asked; ``asked`` is whom, in order."""

    answers: dict[str, Said]
    asked: list[str] = attrs.field(factory=list)

    def generate(self, batch: ExecuteBatch) -> Said:
        assert attrs.evolve(batch, model=BATCH.model) == BATCH
        self.asked.append(batch.model)
        return self.answers[batch.model]


async def heard(models: Models, names: Sequence[str], into: list[str]) -> None:
    chunks = first_that_answers(BATCH, cast("Asking", models), names)
    async with aclosing(chunks):
        async for chunk in chunks:
            into.append(chunk.text)


@pytest.mark.parametrize("error", [DOWN, DeadlineError("too late")])
async def test_the_next_one_is_asked_where_one_does_not_begin(
    error: InferenceError,
) -> None:
    models = Models({"a": Said([], error), "b": Said(["la", "la"]), "c": Said(["x"])})
    texts: list[str] = []
    await heard(models, ["a", "b", "c"], texts)
    assert (texts, models.asked) == (["la", "la"], ["a", "b"])
    assert [said.closed for said in models.answers.values()] == [1, 1, 0]


async def test_an_answer_that_has_begun_is_no_other_s() -> None:
    models = Models({"a": Said(["la"], DOWN), "b": Said(["x"])})
    texts: list[str] = []
    with pytest.raises(UpstreamError, match="down"):
        await heard(models, ["a", "b"], texts)
    assert (texts, models.asked, models.answers["a"].closed) == (["la"], ["a"], 1)


@pytest.mark.parametrize(
    "error", [InvalidRequestError("no such member"), ContentFilterError("withheld")]
)
async def test_what_is_wrong_for_everybody_is_asked_of_nobody_else(
    error: InferenceError,
) -> None:
    models = Models({"a": Said([], error), "b": Said(["x"])})
    with pytest.raises(type(error)):
        await heard(models, ["a", "b"], [])
    assert models.asked == ["a"]


async def test_the_last_one_s_error_is_told() -> None:
    models = Models({"a": Said([], DOWN), "b": Said([], DeadlineError("too late"))})
    with pytest.raises(DeadlineError, match="too late"):
        await heard(models, ["a", "b"], [])
    assert [said.closed for said in models.answers.values()] == [1, 1]


async def test_who_leaves_has_what_is_asked_closed() -> None:
    models = Models({"a": Said(["la", "la"])})
    chunks = first_that_answers(BATCH, cast("Asking", models), ["a"])
    assert (await anext(chunks)).text == "la"
    await chunks.aclose()
    assert models.answers["a"].closed == 1
