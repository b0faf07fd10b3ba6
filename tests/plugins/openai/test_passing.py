"""A request in the upstream's own format goes out, and comes back, as bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.errors import InferenceError, StreamCutError, UpstreamError
from atomr_infer.model.batch import FinishReason, RawChunk, TokenChunk, Usage
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.source import Source
from atomr_infer.testing import upstream_script as script
from atomr_infer.wire.openai.responses_pass import ResponsePass
from atomr_infer.wire.openai.upstream_body import passed_body
from tests.plugins.openai.conftest import Pair, make_batch

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch

SPACED = (
    b'{ "messages" : [{"role":"user","content":"one two three"}],%b"model": "alias" }'
)


def passed(dialect: Dialect = Dialect.OPENAI_CHAT, **members: Any) -> ExecuteBatch:
    """Return a request with a body that no encoder would write so."""
    more = b"".join(
        b'"%b": %b, ' % (k.encode(), json.dumps(v).encode()) for k, v in members.items()
    )
    return make_batch(
        stream=bool(members.get("stream")),
        dialect=dialect,
        source=Source(dialect, SPACED % more, "alias"),
    )


async def raw(pair: Pair, batch: ExecuteBatch) -> list[RawChunk]:
    found = []
    async with pair.runner.execute(batch) as chunks:
        async for chunk in chunks:
            assert isinstance(chunk, RawChunk)
            found.append(chunk)
    return found


async def test_only_the_model_is_changed_in_the_bytes_that_go_out(
    over_socket: Any,
) -> None:
    async with over_socket(script.Happy()) as pair:
        await raw(pair, passed(metadata={"a": "\u00e9"}))
        sent = pair.upstream.requests[0].body
    assert sent == (
        b'{ "messages" : [{"role":"user","content":"one two three"}],'
        b'"metadata": {"a": "\\u00e9"}, "model": "gpt-test" }'
    )


async def test_a_whole_answer_comes_back_as_the_upstream_wrote_it(
    over_socket: Any,
) -> None:
    body = (
        b'{ "id":"x", "object":"chat.completion", "model":"gpt-real",\n'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},'
        b'"finish_reason":"length"}],'
        b'"usage":{"prompt_tokens":3,"completion_tokens":1}}'
    )
    async with over_socket(
        script.RawAnswer(body=body, content_type="application/json")
    ) as pair:
        [chunk] = await raw(pair, passed())
    assert chunk.data == body
    assert chunk.finish_reason is FinishReason.LENGTH
    assert chunk.usage == Usage(input_uncached=3, output_text=1)
    assert (chunk.model, chunk.content_type) == ("gpt-real", "application/json")


async def stream_of(pair: Pair, **options: Any) -> tuple[bytes, list[RawChunk]]:
    chunks = await raw(pair, passed(stream=True, **options))
    return b"".join(chunk.data for chunk in chunks), chunks


WITH_USAGE = {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize("size", [None, 1, 7, 64])
async def test_a_stream_comes_back_byte_for_byte(
    over_socket: Any, size: int | None
) -> None:
    happy = script.Happy(tokens=("a", "b"), model="m")
    async with over_socket(
        happy, script.Happy(tokens=("a", "b"), model="m", split_bytes=size)
    ) as pair:
        whole, _ = await stream_of(pair, **WITH_USAGE)
        cut, chunks = await stream_of(pair, **WITH_USAGE)
    assert cut == whole
    assert whole.endswith(b"data: [DONE]\n\n")
    assert [c.finish_reason for c in chunks if c.finish_reason] == [FinishReason.STOP]
    assert [c.usage for c in chunks if c.usage] == [
        Usage(input_uncached=3, output_text=2)
    ]
    assert chunks[-1].usage is not None


async def test_w8_usage_is_asked_for_and_kept_from_who_did_not_ask(
    over_socket: Any,
) -> None:
    async with over_socket(script.Happy(tokens=("a",))) as pair:
        data, chunks = await stream_of(pair)
        sent = pair.upstream.requests[0].json
    assert sent["stream_options"] == {"include_usage": True}
    events = [json.loads(e[6:]) for e in data.decode().split("\n\n")[:-2]]
    assert all(event["choices"] for event in events)
    assert chunks[-1].usage == Usage(input_uncached=3, output_text=1)


async def test_what_comes_before_the_first_content_says_that_it_is_none(
    over_socket: Any,
) -> None:
    async with over_socket(script.Happy(tokens=("a",), split_bytes=1)) as pair:
        _, chunks = await stream_of(pair)
    assert [chunk.has_content for chunk in chunks[:2]] == [False, True]


async def test_s5_a_finish_without_done_is_complete_and_gets_its_done(
    over_socket: Any,
) -> None:
    async with over_socket(script.Happy(tokens=("a",), done=False)) as pair:
        data, chunks = await stream_of(pair)
    assert data.endswith(b"data: [DONE]\n\n")
    assert chunks[-1].usage is not None


async def test_s5_a_stream_without_finish_and_done_is_cut(over_socket: Any) -> None:
    async with over_socket(script.CutMidStream()) as pair:
        with pytest.raises(StreamCutError):
            await stream_of(pair)


async def test_s6_a_malformed_event_is_left_out_and_the_answer_stands(
    over_socket: Any,
) -> None:
    async with over_socket(script.Happy(tokens=("a", "b"), malformed_after=1)) as pair:
        data, chunks = await stream_of(pair)
    for event in data.decode().split("\n\n")[:-2]:
        json.loads(event.removeprefix("data: "))
    assert chunks[-1].usage is not None


async def test_s7_an_error_in_the_stream_is_an_error_and_no_event(
    over_socket: Any,
) -> None:
    async with over_socket(script.ErrorInStream()) as pair:
        with pytest.raises(UpstreamError):
            await stream_of(pair)


async def test_a_body_with_two_models_takes_the_canonical_way(
    over_socket: Any,
) -> None:
    twice = b'{"model":"x","messages":[],"model":"alias"}'
    batch = make_batch(stream=False, source=Source(Dialect.OPENAI_CHAT, twice, "alias"))
    async with over_socket(script.Happy()) as pair:
        async with pair.runner.execute(batch) as chunks:
            kinds = {type(chunk) async for chunk in chunks}
        assert pair.upstream.requests[0].json["model"] == "gpt-test"
    assert kinds == {TokenChunk}


@pytest.mark.parametrize(
    ("options", "show_usage"),
    [
        (b"", False),
        (b'"stream_options":{"include_usage":true},', True),
        (b'"stream_options":{"include_usage":false},', None),
        (b'"stream_options":null,', None),
    ],
)
def test_usage_is_wished_for_where_the_client_was_silent(
    options: bytes, show_usage: bool | None
) -> None:
    source = Source(Dialect.OPENAI_CHAT, b'{%b"model":"a"}' % options, "a")
    found = passed_body(make_batch(model="a", stream=True, source=source))
    assert (None if found is None else found.show_usage) == show_usage
    if found is not None:
        assert json.loads(found.data)["stream_options"] == {"include_usage": True}


async def test_an_error_by_status_is_the_same_as_on_the_canonical_way(
    over_socket: Any,
) -> None:
    async with over_socket(
        script.Refused(status=503), script.Refused(status=503)
    ) as pair:
        with pytest.raises(InferenceError) as canonical:
            await pair.ask()
        with pytest.raises(InferenceError) as straight:
            await raw(pair, passed())
    assert type(straight.value) is type(canonical.value)
    assert straight.value.message == canonical.value.message


@pytest.mark.parametrize("straight", [False, True])
async def test_what_came_in_the_same_read_before_an_error_is_passed_on(
    over_socket: Any, straight: bool
) -> None:
    body = (
        b'data: {"choices":[{"index":0,"delta":{"content":"half"}}]}\n\n'
        b'data: {"error":{"message":"broke","type":"server_error"}}\n\n'
    )
    batch = passed(stream=True) if straight else make_batch()
    seen = []
    answer = script.RawAnswer(body=body, content_type="text/event-stream")
    async with over_socket(answer) as pair, pair.runner.execute(batch) as chunks:
        seen.append(await anext(chunks))
        with pytest.raises(UpstreamError, match="broke"):
            await anext(chunks)
    assert [chunk.has_content for chunk in seen] == [True]


def responding(*items: dict[str, Any]) -> bytes:
    """Return the body that a request with such an input is passed on with."""
    said = {"role": "user", "content": "on"}
    members = {"reasoning": {"effort": "low"}, "input": [*items, said]}
    body = passed_body(passed(Dialect.OPENAI_RESPONSES, **members))
    assert body is not None
    return body.data


@pytest.mark.parametrize(
    "item",
    [
        {"id": "rs_0a_0", "encrypted_content": "atomr1.anthropic.signature.s"},
        {"id": "rs_0a_0", "encrypted_content": None},
        {"id": "rs_0a_12"},
    ],
)
def test_another_models_thoughts_are_not_passed_on(item: dict[str, Any]) -> None:
    body = json.loads(responding({"type": "reasoning", "summary": [], **item}))
    assert body["input"] == [{"role": "user", "content": "on"}]
    assert (body["model"], body["reasoning"]) == ("gpt-test", {"effort": "low"})


@pytest.mark.parametrize(
    "item",
    [
        {"id": "rs_0a", "encrypted_content": "gAAAAB"},
        {"id": "rs_0a_0", "encrypted_content": "gAAAAB"},
        {"id": "rs_0a"},
        {},
    ],
)
def test_openais_own_thoughts_are_passed_on_as_they_are(item: dict[str, Any]) -> None:
    thought = {"type": "reasoning", "summary": [], **item}
    assert b'"input": [' + json.dumps(thought).encode() in responding(thought)


@pytest.mark.parametrize("said", ["reasoning", [], {"type": "reasoning"}])
def test_an_input_that_holds_no_thoughts_is_passed_on(said: Any) -> None:
    body = passed_body(
        passed(Dialect.OPENAI_RESPONSES, input=said, reasoning={"effort": "low"})
    )
    assert body is not None
    assert b'"input": ' + json.dumps(said).encode() in body.data


@pytest.mark.parametrize(
    ("kind", "finish"),
    [
        ("message", FinishReason.STOP),
        ("web_search_call", FinishReason.STOP),
        ("function_call", FinishReason.TOOL_CALLS),
        ("custom_tool_call", FinishReason.TOOL_CALLS),
    ],
)
def test_an_answer_that_asks_its_client_to_run_a_tool_finishes_so(
    kind: str, finish: FinishReason
) -> None:
    answer = {"object": "response", "status": "completed", "output": [{"type": kind}]}
    reader = ResponsePass(passed(Dialect.OPENAI_RESPONSES))
    (chunk,) = reader.whole(json.dumps(answer).encode())
    assert chunk.finish_reason is finish


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": None}])
def test_an_answer_without_a_count_is_not_billed_as_nothing(usage: Any) -> None:
    answer = {
        "object": "response",
        "status": "completed",
        "output": [{"type": "message"}],
        "usage": usage,
    }
    reader = ResponsePass(passed(Dialect.OPENAI_RESPONSES))
    (chunk,) = reader.whole(json.dumps(answer).encode())
    assert chunk.usage is not None
    assert chunk.usage.estimated
