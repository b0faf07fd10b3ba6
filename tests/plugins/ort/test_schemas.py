"""Answers are the JSON that is asked for, of a model that knows nothing of JSON."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from time import process_time
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest
import trio
import trio.testing

from atomr_infer.errors import EngineError, InvalidRequestError, OverloadedError
from atomr_infer.model.asks import FormatKind, ResponseFormat
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    TokenChunk,
)
from atomr_infer.model.capabilities import Feature
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_ort.plugin import PLUGIN
from atomr_infer_ort.schemas import TRIALS, Schemas, tried
from atomr_infer_ort.tokens import ModelTokenizer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from atomr_infer.model.deployment import Deployment

pytestmark = pytest.mark.engine

SCHEMA = {
    "type": "object",
    "properties": {
        "size": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["cat", "dog"]},
        "on": {"type": "boolean"},
    },
    "required": ["size", "kind", "on"],
    "additionalProperties": False,
}
END = 2


@asynccontextmanager
async def opened(deployment: Deployment) -> AsyncIterator[Any]:
    async with PLUGIN.open_runner(deployment, RunnerContext()) as runner:
        yield runner


def form(schema: object, kind: str = "json_schema") -> ResponseFormat:
    return ResponseFormat(kind=FormatKind(kind), schema=json.dumps(schema).encode())


def ask(wanted: ResponseFormat | None, **sampling: Any) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="tiny",
        messages=(Message(Role.USER, "hi"),),
        sampling=Sampling(**{"max_tokens": 200, "temperature": 1.0, **sampling}),
        response_format=wanted,
    )


async def chunks_of(runner: Any, batch: ExecuteBatch) -> list[TokenChunk]:
    async with runner.execute(batch) as chunks:
        return [chunk async for chunk in chunks]


def text_of(chunks: list[TokenChunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


def check(text: str) -> None:
    found = json.loads(text)
    assert found.keys() == {"size", "kind", "on"}
    assert found["size"] in range(100)
    assert found["kind"] in ("cat", "dog")
    assert found["on"] in (True, False)


async def test_each_answer_is_what_its_schema_says(tiny: Deployment) -> None:
    batch = ask(form(SCHEMA), n=3, seed=1)
    async with opened(tiny) as runner:
        assert {Feature.JSON_OBJECT, Feature.STRUCTURED_OUTPUT} <= (
            runner.capabilities.features
        )
        chunks = await chunks_of(runner, batch)
        again = await chunks_of(runner, batch)
    texts = [text_of(chunks, index) for index in range(3)]
    for text in texts:
        check(text)
    assert len(set(texts)) > 1
    assert [text_of(again, index) for index in range(3)] == texts
    finished = [c.finish_reason for c in chunks if c.finish_reason is not None]
    assert finished == [FinishReason.STOP] * 3
    # It was streamed, a character each byte.
    assert len([c for c in chunks if c.index == 0 and c.text]) > 10


async def test_constrained_answers_and_others_share_steps(tiny: Deployment) -> None:
    found: dict[int, list[TokenChunk]] = {}

    async def run(runner: Any, number: int) -> None:
        wanted = form(SCHEMA) if number % 2 else None
        found[number] = await chunks_of(runner, ask(wanted, seed=number))

    async with opened(tiny) as runner, trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(run, runner, number)
    for number, chunks in found.items():
        if number % 2:
            check(text_of(chunks))


def test_an_answer_has_a_blank_behind_a_colon_or_a_comma_and_nowhere_else(
    llama_folder: Path,
) -> None:
    pair = {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2}
    pairs = {"type": "object", "properties": {"a": pair, "b": pair}}
    constraints = schemas(llama_folder).for_format(
        form({**pairs, "required": ["a", "b"], "additionalProperties": False})
    )
    assert constraints is not None
    tokenizer = ModelTokenizer(llama_folder / "tokenizer.json")

    def may_be(text: str) -> bool:
        constraint = constraints()
        for token in tokenizer.encode(text, with_special=False):
            if not constraint.allows(token):
                return False
            constraint.accept(token)
        return True

    assert may_be('{"a":[1,1],"b":[1,1]}')
    assert may_be('{"a": [1, 1], "b": [1,1]}')
    assert not may_be('{"a":  ')
    for odd in (" {", "{ ", "{\n", '{"a" ', '{"a":\n', '{"a":[ ', '{"a":[1 '):
        assert not may_be(odd), odd


async def test_json_mode_is_any_object(tiny: Deployment) -> None:
    wanted = ResponseFormat(kind=FormatKind.JSON_OBJECT)
    async with opened(tiny) as runner:
        # A random model writes keys without end; its beginning is one of an object.
        chunks = await chunks_of(runner, ask(wanted, max_tokens=40))
    assert text_of(chunks).startswith("{")


async def test_an_answer_that_is_too_long_says_so(tiny: Deployment) -> None:
    async with opened(tiny) as runner:
        chunks = await chunks_of(runner, ask(form(SCHEMA), max_tokens=3))
    finished = [c.finish_reason for c in chunks if c.finish_reason is not None]
    assert finished == [FinishReason.LENGTH]


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "nope"}, "Invalid type: nope"),
        ({"$ref": "http://example.com/schema"}, "is not present"),
        ({"enum": []}, "schema"),
        ([], "schema"),
    ],
    ids=["type", "remote", "nothing", "list"],
)
async def test_a_schema_that_cannot_be_kept_to_is_refused(
    tiny: Deployment, schema: object, problem: str
) -> None:
    async with opened(tiny) as runner:
        with pytest.raises(InvalidRequestError, match=problem) as caught:
            await chunks_of(runner, ask(form(schema)))
        assert caught.value.param == "response_format"
        assert runner.active == 0


async def test_a_draft_leaves_a_constrained_answer_alone(tiny: Deployment) -> None:
    drafts = {**tiny.options, "draft": str(tiny.model)}
    async with opened(attrs.evolve(tiny, options=drafts)) as runner:
        check(text_of(await chunks_of(runner, ask(form(SCHEMA)))))


# --- token by token -----------------------------------------------------------------


def schemas(folder: Path) -> Schemas:
    return Schemas(ModelTokenizer(folder / "tokenizer.json"), frozenset({END}))


def test_what_is_allowed_is_what_is_left_by_the_mask(llama_folder: Path) -> None:
    constraints = schemas(llama_folder).for_format(form({"const": 12}))
    assert constraints is not None
    tokenizer = ModelTokenizer(llama_folder / "tokenizer.json")
    [one, two] = tokenizer.encode("12", with_special=False)
    constraint = constraints()
    for token in (one, two, END):
        # Wider than the tokenizer, as the logits of many models are.
        masked = constraint.masked(np.zeros(300, np.float32))
        allowed = {int(at) for at in np.flatnonzero(masked == 0)}
        assert allowed == {at for at in range(260) if constraint.allows(at)}
        assert token in allowed
        constraint.accept(token)
    assert [constraint.allows(token) for token in (one, END)] == [False, True]


def test_each_answer_is_constrained_by_itself(llama_folder: Path) -> None:
    constraints = schemas(llama_folder).for_format(form({"const": 1}))
    assert constraints is not None
    [one] = ModelTokenizer(llama_folder / "tokenizer.json").encode(
        "1", with_special=False
    )
    first, second = constraints(), constraints()
    first.accept(one)
    assert not first.allows(one)
    assert second.allows(one)


def test_a_token_that_the_tokenizer_does_not_have_may_not_come(
    llama_folder: Path,
) -> None:
    constraints = schemas(llama_folder).for_format(form({"const": 1}))
    assert constraints is not None
    constraint = constraints()
    before = constraint.masked(np.zeros(300, np.float32)).tolist()
    assert not constraint.allows(299)
    assert not constraint.allows(END)
    assert constraint.masked(np.zeros(300, np.float32)).tolist() == before


def test_a_broken_answer_is_not_taken_for_a_whole_one(llama_folder: Path) -> None:
    constraints = schemas(llama_folder).for_format(form({"const": 1}))
    assert constraints is not None
    constraint = constraints()
    with pytest.raises(EngineError, match="cannot be kept to its schema"):
        constraint.accept(5)
    with pytest.raises(EngineError, match="cannot be kept to its schema"):
        constraint.allows(END)
    with pytest.raises(EngineError, match="cannot be kept to its schema"):
        constraint.masked(np.zeros(300, np.float32))


def test_a_schema_is_worked_out_once_for_all_answers(llama_folder: Path) -> None:
    named = schemas(llama_folder)
    named.for_format(form({"const": 1}))
    properties: dict[str, object] = {str(number): {} for number in range(800)}
    large = form({"type": "object", "properties": properties})
    began_s = process_time()
    constraints = named.for_format(large)
    made_s = process_time()
    assert constraints is not None
    # They are made in the event loop.
    for _ in range(32):
        constraints()
    assert process_time() - made_s < made_s - began_s


def test_a_schema_that_would_take_minutes_is_refused(llama_folder: Path) -> None:
    properties: dict[str, object] = {str(number): {} for number in range(30_000)}
    large = form({"type": "object", "properties": properties})
    with pytest.raises(InvalidRequestError, match="at most 262144 are taken"):
        schemas(llama_folder).for_format(large)


def test_a_schema_that_may_take_long_is_tried_elsewhere_and_then_kept_to(
    llama_folder: Path,
) -> None:
    constraints = schemas(llama_folder).for_format(
        form({"type": "string", "pattern": "^[ab]+$"})
    )
    assert constraints is not None
    tokenizer = ModelTokenizer(llama_folder / "tokenizer.json")
    quote, a, c = tokenizer.encode('"ac', with_special=False)
    constraint = constraints()
    constraint.accept(quote)
    assert (constraint.allows(a), constraint.allows(c)) == (True, False)


def test_what_cannot_be_kept_is_told_in_a_sentence_wherever_it_was_tried(
    llama_folder: Path,
) -> None:
    rules = [{"type": "string", "pattern": f"^.*a{n}.*$"} for n in range(14)]
    with pytest.raises(
        InvalidRequestError, match="this schema cannot be kept to: "
    ) as c:
        schemas(llama_folder).for_format(form({"allOf": rules}))
    assert c.value.param == "response_format"
    assert len(c.value.message) < 400


def cpu_s() -> float:
    """What this process and those that it waited for have used of processors."""
    ours, theirs = (getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in (ours, theirs))


@pytest.mark.slow
def test_a_small_schema_whose_work_doubles_with_each_part_ends_in_time() -> None:
    rules = [{"type": "string", "pattern": f"^.*a{n}.*$"} for n in range(40)]
    began_s = cpu_s()
    said = tried(json.dumps({"allOf": rules}), cpu_s=1)
    assert said == "it takes more than 1 s to be worked out; make it simpler"
    # The library alone is at it for longer than anybody has tried.
    assert cpu_s() - began_s < 20


def test_a_trial_that_was_given_no_processor_says_nothing_of_its_schema() -> None:
    with pytest.raises(OverloadedError, match="too many schemas are being worked out"):
        tried("{}", wall_s=0.0)


def test_what_was_refused_once_is_refused_without_another_trial(
    llama_folder: Path,
) -> None:
    refused = form({"type": "string", "pattern": "("})
    named = schemas(llama_folder)
    spent = []
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match="cannot be kept to"):
            named.for_format(refused)
        spent.append(getrusage(RUSAGE_CHILDREN).ru_utime)
    assert spent[0] == spent[1]


async def test_few_schemas_are_tried_at_once_and_plain_ones_do_not_wait_for_them(
    llama_folder: Path, autojump_clock: trio.abc.Clock
) -> None:
    del autojump_clock
    named = schemas(llama_folder)
    found: dict[int, str] = {}

    async def ask_for(number: int) -> None:
        try:
            await named.worked_out(form({"type": "string", "pattern": f"^{number}$"}))
        except OverloadedError as error:
            found[number] = error.message
        else:
            found[number] = ""

    async with trio.open_nursery() as nursery:
        for number in range(TRIALS + 1):
            nursery.start_soon(ask_for, number)
        await trio.testing.wait_all_tasks_blocked()
        assert await named.worked_out(form({"const": 1})) is not None
    busy = "too many schemas are being worked out; try again in a moment"
    assert sorted(found.values()) == ["", "", busy]


def test_what_the_schema_does_not_allow_breaks_the_answer(llama_folder: Path) -> None:
    constraints = schemas(llama_folder).for_format(form({"const": 1}))
    assert constraints is not None
    constraint = constraints()
    with pytest.raises(EngineError, match="cannot be kept to its schema"):
        constraint.accept(5)


def test_text_is_not_constrained(llama_folder: Path) -> None:
    plain = ResponseFormat(kind=FormatKind.TEXT)
    assert schemas(llama_folder).for_format(plain) is None
    assert schemas(llama_folder).for_format(None) is None
