"""Every fault of an upstream, through the runner, with its exact error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from atomr_infer import errors
from atomr_infer.model.asks import (
    Effort,
    FormatKind,
    Reasoning,
    ResponseFormat,
    Tool,
    ToolChoice,
    ToolMode,
)
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    RawChunk,
    ReasoningDelta,
    Role,
    Sampling,
    TokenChunk,
    ToolCallDelta,
)
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.parts import (
    ImagePart,
    Inline,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atomr_infer.model.secret import Secret
from atomr_infer.model.source import Source
from atomr_infer.model.usage import Usage
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.runtimes.contract import Embedder, ModelAware, TokenCounter
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_gemini_upstream
from atomr_infer.testing.upstreams.gemini_turns import signature_of
from atomr_infer.wire.gemini.upstream_contents import UNSIGNED
from atomr_infer_gemini.runner import open_gemini_runner
from tests.at_once import at_once, stand_still

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from atomr_infer.testing.upstream_script import Behaviour

M = "gemini-2.5-flash"
STOP = TokenChunk(finish_reason=FinishReason.STOP, native_finish="STOP", model=M)


def _text(text: str, **members: Any) -> TokenChunk:
    return TokenChunk(text=text, model=M, **members)


def _usage(**members: Any) -> TokenChunk:
    return TokenChunk(usage=Usage(input_uncached=3, **members), model=M)


# --- answers ----------------------------------------------------------------


async def test_stream_gives_each_piece_then_the_finish_then_usage(
    over_socket: Any,
) -> None:
    async with over_socket(script.Happy(tokens=("a", "b"))) as pair:
        assert await pair.ask() == [
            _text("a"),
            _text("b"),
            STOP,
            _usage(output_text=2),
        ]
        sent = pair.upstream.requests[0]
        assert sent.path == f"/v1beta/models/{M}:streamGenerateContent?alt=sse"
        assert sent.json == {
            "contents": [{"role": "user", "parts": [{"text": "one two three"}]}]
        }


async def test_request_carries_key_and_asks_for_no_compression(
    over_socket: Any, key: str
) -> None:
    async with over_socket() as pair:
        await pair.ask()
        headers = pair.upstream.requests[0].headers
        assert headers["x-goog-api-key"] == key
        assert headers["accept-encoding"] == "identity"
        assert headers["content-type"] == "application/json"
        assert headers["user-agent"] == "atomr-infer"
        assert "authorization" not in headers


async def test_whole_answer_is_one_request_without_a_stream(over_socket: Any) -> None:
    async with over_socket(script.Happy(tokens=("a", "b"))) as pair:
        assert await pair.ask(stream=False) == [
            _text("ab"),
            STOP,
            _usage(output_text=2),
        ]
        assert pair.upstream.requests[0].path.endswith(f"{M}:generateContent")


async def test_cached_and_reasoning_tokens_are_told_apart(over_socket: Any) -> None:
    happy = script.Happy(tokens=("a",), cached_tokens=2, reasoning_tokens=4)
    async with over_socket(happy) as pair:
        usage = Usage(input_uncached=1, cache_read=2, output_text=1, reasoning=4)
        assert (await pair.ask())[-1].usage == usage


async def test_several_answers_are_told_apart(over_socket: Any) -> None:
    async with over_socket(script.Happy(tokens=("a",))) as pair:
        chunks = await pair.ask(sampling=Sampling(n=2))
        assert [(c.index, c.text) for c in chunks[:-1]] == [
            (0, "a"),
            (1, "a"),
            (0, ""),
            (1, ""),
        ]


async def test_thoughts_and_their_signature_arrive(over_socket: Any) -> None:
    happy = script.Happy(tokens=("a",), reasoning=("hm", "so"))
    async with over_socket(happy) as pair:
        wanted = Reasoning(effort=Effort.LOW, include=True)
        chunks = await pair.ask(reasoning=wanted)
        assert [chunk.reasoning for chunk in chunks[:2]] == [
            ReasoningDelta(text="hm"),
            ReasoningDelta(text="so"),
        ]
        signature = Signature(signature_of("", "hmso"), Dialect.GEMINI)
        assert chunks[3] == _text("", text_signature=signature)
        assert pair.upstream.requests[0].json["generationConfig"] == {
            "thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": True}
        }


@pytest.mark.parametrize("size", [1, 7])
async def test_stream_cut_into_small_writes_is_the_same(
    over_socket: Any, size: int
) -> None:
    async with over_socket(script.Happy(), script.Happy(split_bytes=size)) as pair:
        assert await pair.ask() == await pair.ask()


async def test_missing_usage_is_estimated(over_socket: Any) -> None:
    async with over_socket(script.Happy(tokens=("four", "four"), usage=False)) as pair:
        usage = (await pair.ask())[-1].usage
        assert usage == Usage(input_uncached=8, output_text=2, estimated=True)


async def test_malformed_event_is_skipped_with_a_warning(
    over_socket: Any, caplog: pytest.LogCaptureFixture
) -> None:
    happy = script.Happy(tokens=("a", "b"), malformed_after=1)
    async with over_socket(happy) as pair:
        assert [chunk.text for chunk in await pair.ask()] == ["a", "b", "", ""]
    assert caplog.messages == [
        "request r-1: skipped 1 malformed events of the upstream's stream"
    ]


ARRAY = (
    b'[{"candidates":[{"content":{"parts":[{"text":"a"}]}}]},\r\n'
    b'{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3}}]'
)


@pytest.mark.parametrize("split_bytes", [None, 1])
async def test_s9_stream_that_a_proxy_made_an_array_is_read(
    over_socket: Any, split_bytes: int | None
) -> None:
    answer = script.RawAnswer(
        content_type="application/json; charset=UTF-8",
        body=ARRAY,
        split_bytes=split_bytes,
    )
    async with over_socket(answer) as pair:
        chunks = await pair.ask()
        assert [chunk.text for chunk in chunks] == ["a", "", ""]


async def test_s9_array_is_read_piece_by_piece(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    hung = script.RawAnswer(
        content_type="application/json", body=ARRAY[:-60], withheld_bytes=60
    )
    async with over_socket(hung) as pair, pair.runner.execute(batch()) as chunks:
        assert (await anext(chunks)).text == "a"


async def test_blocked_prompt_is_an_empty_answer(over_socket: Any) -> None:
    async with over_socket(script.PromptBlocked()) as pair:
        finish, usage = await pair.ask()
        assert finish.finish_reason is FinishReason.CONTENT_FILTER
        assert finish.native_finish == "SAFETY"
        assert usage.usage == Usage(input_uncached=3)


# --- what is asked ----------------------------------------------------------


async def test_tools_go_round_with_their_ids_and_signatures(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    calls = script.tool_calls(
        script.ToolCall(name="f"), script.ToolCall(name="g", id="own")
    )
    tools = (Tool(name="f", parameters=b'{"type":"object"}'), Tool(name="g"))
    choice = ToolChoice(mode=ToolMode.REQUIRED, names=("f", "g"))
    members = {"model": "gemini-3-pro", "tools": tools, "tool_choice": choice}
    async with over_socket(calls) as pair:
        chunks = await pair.ask(**members)
        first, second = [delta for chunk in chunks for delta in chunk.tool_calls]
        assert first == ToolCallDelta(
            index=0,
            id=first.id,
            name="f",
            arguments='{"city":"Paris"}',
            signature=Signature(signature_of("f", {"city": "Paris"}), Dialect.GEMINI),
        )
        assert first.id.startswith("call_")
        assert len(first.id) == 29
        assert (second.index, second.id, second.name) == (1, "own", "g")
        assert chunks[-2].finish_reason is FinishReason.TOOL_CALLS
        parts = tuple(
            ToolCallPart(
                id=delta.id,
                name=delta.name,
                arguments=delta.arguments,
                signature=delta.signature,
            )
            for delta in (first, second)
        )
        results = tuple(
            ToolResultPart(call_id=part.id, content=(TextPart("ok"),))
            for part in reversed(parts)
        )
        turn = (
            *batch().messages,
            Message(Role.ASSISTANT, parts),
            Message(Role.TOOL, results),
        )
        assert (await pair.ask(**members, messages=turn))[0].text == "Hello"
        sent = pair.upstream.requests[1].json
        answered = sent["contents"][2]["parts"]
        assert [part["functionResponse"]["name"] for part in answered] == ["g", "f"]


async def test_calls_of_another_model_are_taken_by_one_that_wants_signatures(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    call = ToolCallPart(id="toolu_1", name="f", arguments="{}")
    result = ToolResultPart(call_id="toolu_1", content=(TextPart("ok"),))
    turns = (
        *batch().messages,
        Message(Role.ASSISTANT, (call,)),
        Message(Role.TOOL, (result,)),
    )
    async with over_socket() as pair:
        chunks = await pair.ask(
            model="gemini-3-pro", messages=turns, tools=(Tool(name="f"),)
        )
        assert chunks[0].text == "Hello"


async def test_signature_that_the_client_lost_is_found_again(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    members = {"model": "gemini-3-pro", "tools": (Tool(name="f"),)}
    async with over_socket(script.tool_calls(script.ToolCall(name="f"))) as pair:
        chunks = await pair.ask(**members)
        [delta] = [delta for chunk in chunks for delta in chunk.tool_calls]
        call = ToolCallPart(id=delta.id, name="f", arguments='{"city": "Paris"}')
        other = ToolCallPart(id=delta.id, name="f", arguments='{"city": "Rome"}')
        result = ToolResultPart(call_id=delta.id, content=(TextPart("ok"),))
        for part in (call, other):
            turns = (Message(Role.ASSISTANT, (part,)), Message(Role.TOOL, (result,)))
            await pair.ask(**members, messages=(*batch().messages, *turns))
        sent = [request.json["contents"][1] for request in pair.upstream.requests[1:]]
        assert [turn["parts"][0]["thoughtSignature"] for turn in sent] == [
            delta.signature.text,
            UNSIGNED,
        ]


async def test_schema_and_picture_are_understood(over_socket: Any) -> None:
    schema = b'{"type":"object","properties":{"n":{"type":"integer"}}}'
    form = ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=schema)
    picture = ImagePart(source=Inline("image/png", "iVBORw0KGgoAAAANSUhEUg=="))
    message = Message(Role.USER, (TextPart("look"), picture))
    async with over_socket() as pair:
        chunks = await pair.ask(messages=(message,), response_format=form)
        assert msgspec.json.decode("".join(c.text for c in chunks)) == {"n": 1}
        [media] = pair.upstream.requests[0].media
        assert media.type == "image/png"


async def test_deployments_settings_are_for_requests_without(over_socket: Any) -> None:
    settings = {"HARM_CATEGORY_HARASSMENT": "OFF"}
    async with over_socket(safety_settings=settings) as pair:
        await pair.ask()
        source = Source(
            Dialect.GEMINI, b'{"contents":[{"parts":[{"text":"a"}]}]}', None
        )
        await pair.get(source=source)
        first, second = [request.json for request in pair.upstream.requests]
        expected = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}]
        assert first["safetySettings"] == second["safetySettings"] == expected


# --- passed on --------------------------------------------------------------

BODY = b'{ "contents":[{"parts":[{"text":"one two"}]}], "model":"models/x" }'


def _source(body: bytes = BODY) -> Source:
    return Source(Dialect.GEMINI, body, None)


async def test_bytes_of_the_same_dialect_are_passed_on_both_ways(
    over_socket: Any,
) -> None:
    async with over_socket(script.Happy(tokens=("a", "b"))) as pair:
        chunks = await pair.get(source=_source())
        assert all(isinstance(chunk, RawChunk) for chunk in chunks)
        assert pair.upstream.requests[0].body == BODY
        assert [chunk.text for chunk in chunks] == ["a", "b", "", ""]
        assert chunks[0].data.startswith(b'data: {"candidates":[{"content":')
        assert chunks[0].data.endswith(b'"responseId":"resp-fake"}\n\n')
        assert chunks[2].finish_reason is FinishReason.STOP
        assert chunks[3] == RawChunk(
            data=b"",
            has_content=False,
            usage=Usage(input_uncached=2, output_text=2),
            model=M,
        )


async def test_whole_answer_of_the_same_dialect_is_one_piece(over_socket: Any) -> None:
    async with over_socket(script.Happy(tokens=("a", "b"))) as pair:
        [chunk] = await pair.get(source=_source(), stream=False)
        answer = msgspec.json.decode(chunk.data)
        assert answer["candidates"][0]["content"]["parts"] == [{"text": "ab"}]
        assert (chunk.text, chunk.finish_reason) == ("ab", FinishReason.STOP)
        assert chunk.usage == Usage(input_uncached=2, output_text=2)
        assert chunk.content_type == "application/json; charset=UTF-8"


async def test_bytes_of_another_dialect_are_not_passed_on(over_socket: Any) -> None:
    source = Source(Dialect.OPENAI_CHAT, b'{"model":"x"}', "x")
    async with over_socket(script.Happy(tokens=("a",))) as pair:
        assert (await pair.ask(source=source))[0] == _text("a")


# --- faults -----------------------------------------------------------------

FAULTS = [
    (script.rate_limited(None), errors.RateLimitedError, "rate_limit_exceeded"),
    (script.server_error(500), errors.UpstreamError, None),
    (script.server_error(503), errors.UpstreamError, None),
    (script.server_error(504), errors.UpstreamTimeoutError, None),
    (script.Refused(status=400), errors.InvalidRequestError, None),
    (
        script.RefusedAs(script.Meaning.BAD_KEY),
        errors.UpstreamAuthError,
        "api_key_invalid",
    ),
    (
        script.RefusedAs(script.Meaning.CONTEXT_TOO_LONG),
        errors.ContextLengthError,
        None,
    ),
    (script.RefusedAs(script.Meaning.OVERLOADED), errors.UpstreamError, None),
    (script.RefusedAs(script.Meaning.UNKNOWN_MODEL), errors.ModelNotFoundError, None),
    (script.CutMidStream(after=2), errors.StreamCutError, None),
    (script.CutMidStream(after=0), errors.StreamCutError, None),
    (script.HalfClose(), errors.StreamCutError, None),
    (script.EndWithoutFinish(), errors.StreamCutError, None),
    (script.ErrorInStream(), errors.UpstreamError, None),
    (script.ErrorInStream(after=0), errors.UpstreamError, None),
    (
        script.ErrorInStream(data=b"overloaded", event="error"),
        errors.UpstreamError,
        None,
    ),
    (
        script.Happy(native_finish="MALFORMED_FUNCTION_CALL"),
        errors.UpstreamProtocolError,
        "malformed_function_call",
    ),
    (
        script.Happy(native_finish="MISSING_THOUGHT_SIGNATURE"),
        errors.InternalError,
        "missing_thought_signature",
    ),
    (script.RawAnswer(), errors.UpstreamProtocolError, "wrong_content_type"),
    (
        script.RawAnswer(content_type="application/json", body=b"[1]"),
        errors.UpstreamProtocolError,
        "malformed_body",
    ),
    (
        script.RawAnswer(status=302, body=b""),
        errors.UpstreamProtocolError,
        "not_an_api",
    ),
    (script.RawAnswer(status=404), errors.UpstreamProtocolError, "not_an_api"),
    (
        script.HugeLine(size_bytes=17 * 1024 * 1024),
        errors.UpstreamProtocolError,
        "event_too_long",
    ),
    (script.CloseBeforeHeaders(), errors.StreamCutError, "no_response"),
]


@pytest.mark.parametrize("passed_on", [False, True], ids=["written", "passed-on"])
@pytest.mark.parametrize(
    ("fault", "error_class", "code"),
    FAULTS,
    ids=[f"{type(f).__name__}-{n}" for n, (f, *_) in enumerate(FAULTS)],
)
async def test_fault_has_its_error_and_the_next_request_works(
    over_socket: Any,
    fault: Any,
    error_class: type[Exception],
    code: str | None,
    passed_on: bool,
) -> None:
    members = {"source": _source()} if passed_on else {}
    async with over_socket(fault) as pair:
        with pytest.raises(errors.InferenceError) as caught:
            await pair.get(**members)
        assert type(caught.value) is error_class
        assert caught.value.code == code
        assert pair.runner.active == 0
        assert (await pair.get(**members))[-1].usage is not None


@pytest.mark.parametrize(
    "fault", [script.CutMidStream(), script.HalfClose(), script.RawAnswer()]
)
async def test_fault_in_a_whole_answer_has_its_error(
    over_socket: Any, fault: Any
) -> None:
    async with over_socket(fault) as pair:
        with pytest.raises((errors.StreamCutError, errors.UpstreamProtocolError)):
            await pair.ask(stream=False)


async def test_rate_limit_says_how_long_to_wait(over_socket: Any) -> None:
    async with over_socket(script.rate_limited("37")) as pair:
        with pytest.raises(errors.RateLimitedError) as caught:
            await pair.ask()
    assert (caught.value.retry_after_s, caught.value.status) == (37.0, 429)


async def test_content_before_a_cut_is_given(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    async with over_socket(script.CutMidStream(after=2)) as pair:
        seen = []
        with pytest.raises(errors.StreamCutError):
            async with pair.runner.execute(batch()) as chunks:
                async for chunk in chunks:
                    seen.append(chunk.text)
        assert seen == ["Hello", " from"]


async def test_what_cannot_be_written_is_refused_before_anything_is_sent(
    over_socket: Any,
) -> None:
    async with over_socket() as pair:
        for members in (
            {"messages": (Message(Role.ASSISTANT, "I"),)},
            {"model": "../secrets"},
        ):
            with pytest.raises(errors.InferenceError):
                await pair.ask(**members)
        assert pair.upstream.connections == 0
        assert pair.runner.active == 0


async def test_refused_connection_is_a_connect_error(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    async with over_socket() as pair:
        gone = pair.upstream.base_url
    wanted = Deployment(name="up", runtime="gemini", options={"endpoint": gone})
    async with open_gemini_runner(wanted, fixed(None)) as runner:
        with pytest.raises(errors.UpstreamConnectError):
            async with runner.execute(batch()):
                pytest.fail("entered without an upstream")
        assert runner.active == 0


# --- embeddings and counting ------------------------------------------------


async def test_runner_does_more_than_generate(over_socket: Any) -> None:
    async with over_socket() as pair:
        assert isinstance(pair.runner, ModelAware)
        assert isinstance(pair.runner, Embedder)
        assert isinstance(pair.runner, TokenCounter)


async def test_texts_are_embedded_in_order(over_socket: Any) -> None:
    request = EmbedRequest(
        request_id="e-1",
        model="gemini-embedding-001",
        inputs=("a b", "c"),
        dimensions=4,
        task="RETRIEVAL_QUERY",
        title="t",
    )
    async with over_socket() as pair:
        found = await pair.runner.embed(request)
        assert [len(vector) for vector in found.vectors] == [4, 4]
        assert found.vectors[0] != found.vectors[1]
        assert found.usage == Usage(input_uncached=2, estimated=True)
        sent = pair.upstream.requests[0]
        assert sent.path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
        assert sent.json["requests"][1] == {
            "model": "models/gemini-embedding-001",
            "content": {"parts": [{"text": "c"}]},
            "taskType": "RETRIEVAL_QUERY",
            "title": "t",
            "outputDimensionality": 4,
        }


async def test_many_texts_go_in_several_requests(over_socket: Any) -> None:
    request = EmbedRequest(
        request_id="e-1", model="x-embedding", inputs=("a",) * 250, dimensions=2
    )
    async with over_socket() as pair:
        found = await pair.runner.embed(request)
        assert len(found.vectors) == 250
        sizes = [len(sent.json["requests"]) for sent in pair.upstream.requests]
        assert sizes == [100, 100, 50]


async def test_tokens_are_not_texts(over_socket: Any) -> None:
    request = EmbedRequest(request_id="e-1", model="m", inputs=((1, 2),))
    async with over_socket() as pair:
        with pytest.raises(errors.UnsupportedFeatureError):
            await pair.runner.embed(request)


async def test_prompt_is_counted(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    async with over_socket() as pair:
        counted = batch(tools=(Tool(name="f"),))
        assert await pair.runner.count_tokens(counted) == 3
        sent = pair.upstream.requests[0]
        assert sent.path == f"/v1beta/models/{M}:countTokens"
        assert sent.json["generateContentRequest"]["model"] == f"models/{M}"


@pytest.mark.parametrize(
    "answer",
    [
        script.RawAnswer(content_type="application/json", body=b"{}"),
        script.RawAnswer(content_type="application/json", body=b"nope"),
        script.RawAnswer(),
        script.RawAnswer(
            content_type="application/json", body=b'{"error":{"message":"x"}}'
        ),
        script.server_error(500),
        script.CloseBeforeHeaders(),
    ],
)
async def test_answer_that_is_none_is_an_error_of_the_upstream(
    over_socket: Any, batch: Callable[..., ExecuteBatch], answer: Behaviour
) -> None:
    request = EmbedRequest(request_id="e-1", model="m", inputs=("a",))
    async with over_socket(answer, answer) as pair:
        with pytest.raises(errors.UpstreamError):
            await pair.runner.embed(request)
        with pytest.raises(errors.UpstreamError):
            await pair.runner.count_tokens(batch())
        assert pair.runner.active == 0


# --- connections ------------------------------------------------------------


async def test_many_answers_in_sequence_share_one_connection(over_socket: Any) -> None:
    async with over_socket() as pair:
        for number in range(20):
            await pair.ask(stream=number % 2 == 0)
        assert pair.upstream.connections == 1


async def test_errors_do_not_cost_the_connection(over_socket: Any) -> None:
    async with over_socket(script.rate_limited(None), script.server_error()) as pair:
        for _ in range(2):
            with pytest.raises(errors.InferenceError):
                await pair.ask()
        await pair.ask()
        assert pair.upstream.connections == 1


# --- cancellation -----------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "taken"),
    [
        (script.HangBeforeHeaders(), None),
        (script.HangMidStream(after=0), 0),
        (script.HangMidStream(after=2), 2),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_upstream_sees_a_cancelled_request_leave_at_once(
    over_socket: Any,
    mock_clock: MockClock,
    batch: Callable[..., ExecuteBatch],
    behaviour: Behaviour,
    taken: int | None,
    stream: bool,
) -> None:
    mock_clock.rate = 1.0
    async with over_socket(behaviour) as pair:
        reached = trio.Event()

        async def ask() -> None:
            async with pair.runner.execute(batch(stream=stream)) as chunks:
                for _ in range(taken or 0 if stream else 0):
                    await anext(chunks)
                reached.set()
                await anext(chunks)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await pair.upstream.wait_for_requests(1)
            if taken is not None and stream:
                await reached.wait()
            assert pair.runner.active == 1
            stand_still(mock_clock)
            nursery.cancel_scope.cancel()
        assert pair.runner.active == 0
        await _left_at_once(pair, mock_clock)


async def test_count_and_embedding_are_cancelled_too(
    over_socket: Any, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    request = EmbedRequest(request_id="e-1", model="m", inputs=("a",))
    async with over_socket(script.HangBeforeHeaders()) as pair:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.runner.embed, request)
            await pair.upstream.wait_for_requests(1)
            stand_still(mock_clock)
            nursery.cancel_scope.cancel()
        assert pair.runner.active == 0
        await _left_at_once(pair, mock_clock)


async def _left_at_once(pair: Any, mock_clock: MockClock) -> None:
    """Wait until the upstream sees it, while time stands still."""
    request = pair.upstream.requests[0]
    await at_once(request.client_left.is_set, mock_clock)
    assert not request.answered.is_set()


# --- secrets ----------------------------------------------------------------


async def test_key_is_in_no_error_no_text_and_no_log(
    over_socket: Any, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = f"API key not valid: {key}"
    in_stream = f'{{"error":{{"message":"{told}"}}}}'.encode()
    faults = (
        script.Refused(status=400, message=told, param=key),
        script.Refused(status=400, message=told, code=key),
        script.ErrorInStream(data=in_stream),
        script.ErrorInStream(data=told.encode(), event="error"),
        script.RawAnswer(content_type="application/json", body=in_stream),
        script.Happy(malformed_after=1),
    )
    async with over_socket(*faults) as pair:
        texts = [repr(pair.runner)]
        for _ in faults[:-1]:
            with pytest.raises(errors.InferenceError) as caught:
                await pair.ask()
            error: BaseException | None = caught.value
            while error is not None:
                texts += [repr(error), str(error), repr(vars(error))]
                error = error.__cause__ or error.__context__
        await pair.ask()
    assert key not in "".join(texts) + caplog.text
    assert "***" in "".join(texts)


@pytest.mark.parametrize("bad", ["AIza-1\n", "AIza 1\r\nx: y", "AIza-é"])
async def test_key_that_no_header_can_carry_is_refused_unshown(
    bad: str, batch: Callable[..., ExecuteBatch]
) -> None:
    async with open_gemini_upstream() as upstream:
        wanted = Deployment(
            name="up", runtime="gemini", options={"endpoint": upstream.base_url}
        )
        async with open_gemini_runner(wanted, fixed(Secret(bad))) as runner:
            with pytest.raises(errors.UpstreamAuthError) as caught:
                async with runner.execute(batch()):
                    pytest.fail("entered")
        assert upstream.connections == 0
    assert bad.strip() not in str(caught.value)


async def test_runner_that_is_well_never_fails(over_socket: Any) -> None:
    async with over_socket() as pair:
        with trio.move_on_after(0.01) as scope:
            await pair.runner.failed()
        assert scope.cancelled_caught
