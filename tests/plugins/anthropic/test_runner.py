"""The runner on a faithful fake: what it asks, what it gives, what goes wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
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
    Role,
    Sampling,
    TokenChunk,
    ToolCallDelta,
)
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import ImagePart, Inline, ToolCallPart, ToolResultPart
from atomr_infer.model.source import Source
from atomr_infer.model.usage import Usage
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_anthropic_upstream
from atomr_infer.wire.anthropic.ingress import MESSAGES
from atomr_infer.wire.ingress import Call
from atomr_infer_anthropic.runner import open_anthropic_runner
from tests.at_once import at_once, stand_still

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from atomr_infer.testing.upstream_script import Behaviour

M = "claude-sonnet-4-5"
STOP = TokenChunk(finish_reason=FinishReason.STOP, native_finish="end_turn", model=M)
SCHEMA = b'{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}'


def _text(text: str) -> TokenChunk:
    return TokenChunk(text=text, model=M)


def _usage(**members: Any) -> TokenChunk:
    return TokenChunk(usage=Usage(input_uncached=3, **members), model=M)


# --- answers --------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
async def test_answer_is_its_pieces_then_the_finish_then_usage(
    over_socket: Any, stream: bool
) -> None:
    async with over_socket(script.Happy(tokens=("a", "b"))) as pair:
        chunks = await pair.ask(stream=stream)
        pieces = [_text("a"), _text("b")] if stream else [_text("ab")]
        assert chunks == [*pieces, STOP, _usage(output_text=2)]
        assert pair.upstream.requests[0].path == "/v1/messages"
        assert pair.upstream.requests[0].json == {
            "model": M,
            "max_tokens": 100,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "one two three"}]}
            ],
            "stream": stream,
        }


async def test_request_carries_key_and_version(over_socket: Any, key: str) -> None:
    async with over_socket(api_key=key) as pair:
        await pair.ask()
        headers = pair.upstream.requests[0].headers
        assert headers["x-api-key"] == key
        assert "authorization" not in headers
        assert headers["anthropic-version"] == "2026-10-21"
        assert "anthropic-beta" not in headers
        assert headers["accept-encoding"] == "identity"
        assert headers["user-agent"] == "atomr-infer"


async def test_options_become_headers(over_socket: Any, key: str) -> None:
    options: dict[str, Any] = {
        "auth": "bearer",
        "beta": "b-1",
        "api_version": "2023-06-01",
        "headers": {"X-Team": "blue", "user-agent": "mine"},
    }
    async with over_socket(api_key=key, **options) as pair:
        await pair.ask()
        headers = pair.upstream.requests[0].headers
        assert headers["authorization"] == f"Bearer {key}"
        assert "x-api-key" not in headers
        assert headers["anthropic-version"] == "2023-06-01"
        assert headers["anthropic-beta"] == "b-1"
        assert (headers["x-team"], headers["user-agent"]) == ("blue", "mine")


async def test_sampling_chooses_the_version_that_takes_it(over_socket: Any) -> None:
    async with over_socket() as pair:
        await pair.ask(sampling=Sampling(temperature=1.5, max_tokens=9))
        request = pair.upstream.requests[0]
        assert request.headers["anthropic-version"] == "2023-06-01"
        assert request.json["temperature"] == 1.0
        newer = Sampling(temperature=0.5, max_tokens=9)
        await pair.ask(sampling=newer, model="claude-opus-5")
        assert "temperature" not in pair.upstream.requests[1].json


async def test_version_that_is_pinned_takes_no_sampling(over_socket: Any) -> None:
    async with over_socket(api_version="2026-10-21") as pair:
        assert "temperature" not in pair.runner.capabilities.sampling
        await pair.ask(sampling=Sampling(temperature=0.5, max_tokens=9))
        request = pair.upstream.requests[0]
        assert request.headers["anthropic-version"] == "2026-10-21"
        assert "temperature" not in request.json


async def test_what_was_approximated_is_told_with_the_first_chunk(
    over_socket: Any,
) -> None:
    async with over_socket() as pair:
        chunks = await pair.ask(sampling=Sampling(temperature=1.5, max_tokens=9))
        assert [chunk.warnings for chunk in chunks] == [
            ("temperature was lowered to 1",),
            *[()] * (len(chunks) - 1),
        ]


async def test_limit_of_the_deployment_is_the_models_most(over_socket: Any) -> None:
    async with over_socket(max_output_tokens=5) as pair:
        await pair.ask(sampling=Sampling())
        await pair.ask(sampling=Sampling(max_tokens=50))
        assert [r.json["max_tokens"] for r in pair.upstream.requests] == [5, 5]


async def test_cached_and_reasoning_tokens_are_told_apart(over_socket: Any) -> None:
    happy = script.Happy(tokens=("a",), cached_tokens=2, reasoning_tokens=4)
    async with over_socket(happy) as pair:
        usage = Usage(input_uncached=1, cache_read=2, output_text=1, reasoning=4)
        assert (await pair.ask())[-1].usage == usage


async def test_t2_tools_are_called_in_pieces_with_dense_indices(
    over_socket: Any,
) -> None:
    calls = script.tool_calls(
        script.ToolCall(arguments=("{", "}")), script.ToolCall(name="f", arguments=())
    )
    async with over_socket(attrs.evolve(calls, text="so")) as pair:
        chunks = await pair.ask()
        assert [call for chunk in chunks for call in chunk.tool_calls] == [
            ToolCallDelta(index=0, id="toolu_fake", name="get_weather"),
            ToolCallDelta(index=0, arguments="{"),
            ToolCallDelta(index=0, arguments="}"),
            ToolCallDelta(index=1, id="toolu_fake_1", name="f"),
            ToolCallDelta(index=1, arguments="{}"),
        ]
        assert chunks[-2].finish_reason is FinishReason.TOOL_CALLS


async def test_conversation_with_tools_is_one_that_the_provider_takes(
    over_socket: Any,
) -> None:
    called = Message(
        Role.ASSISTANT,
        (
            ToolCallPart(id="functions.f:0", name="f", arguments='{"a":1}'),
            ToolCallPart(id="c2", name="f", arguments=""),
        ),
    )
    results = [
        Message(Role.TOOL, (ToolResultPart(call_id=identity),))
        for identity in ("functions.f:0", "c2")
    ]
    async with over_socket() as pair:
        chunks = await pair.ask(
            messages=(
                Message(Role.SYSTEM, "be"),
                Message(Role.USER, "go"),
                called,
                *results,
                Message(Role.SYSTEM, "now"),
                Message(Role.USER, "on"),
            ),
            tools=(Tool(name="f", parameters=SCHEMA),),
            tool_choice=ToolChoice(mode=ToolMode.AUTO),
            parallel_tool_calls=False,
        )
        assert chunks[-2] == STOP


@pytest.mark.parametrize("model", ["claude-sonnet-4-20250514", M])
async def test_structured_output_is_text_whatever_the_model_is_asked_by(
    over_socket: Any, model: str
) -> None:
    form = ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=SCHEMA)
    answer = (
        script.Happy()
        if model == M
        else script.ToolCall(name="json_answer", arguments=('{"a":', '"x"}'))
    )
    async with over_socket(answer) as pair:
        chunks = await pair.ask(response_format=form, model=model)
        said = json.loads("".join(chunk.text for chunk in chunks))
        assert said.keys() == {"a"}
        assert chunks[-2].finish_reason is FinishReason.STOP
        assert not any(chunk.tool_calls for chunk in chunks)


@pytest.mark.parametrize("model", ["claude-opus-5", "claude-opus-4-6", M])
async def test_thoughts_come_with_their_signature_and_go_back(
    over_socket: Any, model: str
) -> None:
    thinking = script.Happy(tokens=("a",), reasoning=("hm", " so"))
    asked = Reasoning(effort=Effort.HIGH, include=True)
    limit = Sampling(max_tokens=9000)
    async with over_socket(thinking, thinking) as pair:
        chunks = await pair.ask(reasoning=asked, model=model, sampling=limit)
        thoughts = [c.reasoning for c in chunks if c.reasoning is not None]
        assert "".join(thought.text for thought in thoughts) == "hm so"
        assert thoughts[-1].signature is not None
        assert thoughts[-1].signature.origin is Dialect.ANTHROPIC


async def test_pictures_are_sent(over_socket: Any) -> None:
    png = "iVBORw0KGgoAAAANSUhEUg=="
    picture = ImagePart(source=Inline("image/jpeg", png))
    async with over_socket() as pair:
        await pair.ask(messages=(Message(Role.USER, (picture,)),))
        (media,) = pair.upstream.requests[0].media
        assert (media.type, media.size_bytes) == ("image/png", 16)


async def test_stop_sequence_is_told(over_socket: Any) -> None:
    async with over_socket() as pair:
        chunks = await pair.ask(sampling=Sampling(max_tokens=50, stop=("the",)))
        assert chunks[-2].stop_sequence == "the"
        assert chunks[-2].native_finish == "stop_sequence"


@pytest.mark.parametrize("size", [1, 7])
async def test_stream_cut_into_small_writes_is_the_same(
    over_socket: Any, size: int
) -> None:
    async with over_socket(script.Happy(), script.Happy(split_bytes=size)) as pair:
        assert await pair.ask() == await pair.ask()


async def test_malformed_event_is_skipped_with_a_warning(
    over_socket: Any, caplog: pytest.LogCaptureFixture
) -> None:
    happy = script.Happy(tokens=("a", "b"), malformed_after=1)
    async with over_socket(happy) as pair:
        assert [chunk.text for chunk in await pair.ask()] == ["a", "b", "", ""]
    assert caplog.messages == [
        "request r-1: skipped 1 malformed events of the upstream's stream"
    ]


# --- passing on ------------------------------------------------------------------


def passed(body: bytes, model: str = M, **headers: str) -> ExecuteBatch:
    """A client's request, read and then renamed for the upstream."""
    call = Call(request_id="r-1", body=body, headers=headers)
    return attrs.evolve(MESSAGES.parse(call).batch, model=model)


def request(**members: Any) -> bytes:
    plain = {
        "stream": True,
        "model": "mine",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "one two three"}],
    }
    return json.dumps({**plain, **members}, indent=1).encode()


async def run(pair: Any, batch: ExecuteBatch) -> list[Any]:
    async with pair.runner.execute(batch) as chunks:
        return [chunk async for chunk in chunks]


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
async def test_same_dialect_goes_by_bytes_both_ways(
    over_socket: Any, version: str
) -> None:
    body = request(metadata={"user_id": "u"}, tools=[])
    headers = {"anthropic-version": version, "anthropic-beta": "c-1"}
    async with over_socket(beta="b-1") as pair:
        chunks = await run(pair, passed(body, **headers))
        sent = pair.upstream.requests[0]
        assert sent.body == body.replace(b'"mine"', b'"claude-sonnet-4-5"')
        assert sent.headers["anthropic-version"] == version
        assert sent.headers["anthropic-beta"] == "b-1,c-1"
        assert all(isinstance(chunk, RawChunk) for chunk in chunks)
        text = b"".join(chunk.data for chunk in chunks)
        assert text.startswith(b"event: message_start\n")
        assert b"event: ping\n" in text
        assert text.endswith(b'"message_stop"}\n\n')
        finishes = [c.finish_reason for c in chunks if c.finish_reason is not None]
        assert finishes == [FinishReason.STOP]
        assert chunks[-1].usage == Usage(input_uncached=3, output_text=6)


async def test_a_whole_answer_is_passed_on(over_socket: Any) -> None:
    async with over_socket() as pair:
        (chunk,) = await run(pair, passed(request(stream=False)))
        answer = json.loads(chunk.data)
        assert answer["content"][0]["text"] == "Hello from the fake upstream."
        assert chunk.content_type == "application/json"
        assert chunk.usage == Usage(input_uncached=3, output_text=6)


async def test_request_that_cannot_be_renamed_is_written_anew(
    over_socket: Any,
) -> None:
    body = request().replace(b'"mine"', b'"m\\u0069ne"')
    async with over_socket() as pair:
        chunks = await run(pair, passed(body))
        assert all(isinstance(chunk, TokenChunk) for chunk in chunks)
        assert pair.upstream.requests[0].json["model"] == M


async def test_source_of_another_dialect_is_not_passed_on(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    source = Source(Dialect.OPENAI_CHAT, b'{"model":"mine"}', "mine")
    async with over_socket() as pair:
        assert isinstance((await run(pair, batch(source=source)))[0], TokenChunk)


async def test_prefill_is_refused_here_so_that_another_model_may_take_it(
    over_socket: Any,
) -> None:
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "Once"},
    ]
    body = request(messages=messages)
    async with over_socket() as pair:
        with pytest.raises(errors.UnsupportedFeatureError):
            await run(pair, passed(body, "claude-opus-4-6"))
        assert pair.upstream.requests == []
        assert await run(pair, passed(body))


@pytest.mark.parametrize(
    ("fault", "error_class"),
    [
        (script.CutMidStream(after=2), errors.StreamCutError),
        (script.EndWithoutFinish(), errors.StreamCutError),
        (script.ErrorInStream(), errors.UpstreamError),
        (script.rate_limited(), errors.RateLimitedError),
    ],
)
async def test_fault_of_an_answer_that_is_passed_on_has_its_error(
    over_socket: Any, fault: Any, error_class: type[Exception]
) -> None:
    async with over_socket(fault) as pair:
        with pytest.raises(error_class):
            await run(pair, passed(request()))
        assert pair.runner.active == 0


async def test_header_that_http_cannot_carry_is_the_clients_mistake(
    over_socket: Any,
) -> None:
    batch = passed(request(), **{"anthropic-beta": "caf\u00e9"})
    async with over_socket() as pair:
        with pytest.raises(errors.InvalidRequestError, match="anthropic-beta"):
            await run(pair, batch)


# --- counting --------------------------------------------------------------------


async def test_tokens_are_counted_by_the_provider(
    over_socket: Any, batch: Callable[..., ExecuteBatch]
) -> None:
    async with over_socket() as pair:
        assert await pair.runner.count_tokens(batch()) == 3
        request_ = pair.upstream.requests[0]
        assert request_.path == "/v1/messages/count_tokens"
        assert request_.json.keys() == {"model", "messages"}


async def test_count_of_the_same_dialect_goes_by_bytes(over_socket: Any) -> None:
    body = b'{"model" : "mine", "messages": [{"role":"user","content":"a b"}]}'
    call = Call(request_id="r", body=body, action="count_tokens")
    batch = attrs.evolve(MESSAGES.parse(call).batch, model=M)
    async with over_socket() as pair:
        assert await pair.runner.count_tokens(batch) == 2
        assert pair.upstream.requests[0].body == body.replace(b"mine", M.encode())


@pytest.mark.parametrize(
    ("answer", "error_class"),
    [
        (script.rate_limited(), errors.RateLimitedError),
        (
            script.RawAnswer(content_type="application/json", body=b"{}"),
            errors.UpstreamProtocolError,
        ),
        (script.CloseBeforeHeaders(), errors.StreamCutError),
    ],
)
async def test_count_that_fails_has_its_error(
    over_socket: Any,
    batch: Callable[..., ExecuteBatch],
    answer: Any,
    error_class: type[Exception],
) -> None:
    async with over_socket(answer) as pair:
        with pytest.raises(error_class):
            await pair.runner.count_tokens(batch())


# --- faults ----------------------------------------------------------------------

FAULTS = [
    (script.rate_limited(None), errors.RateLimitedError, None),
    (script.server_error(500), errors.UpstreamError, None),
    (script.server_error(529), errors.UpstreamError, "overloaded"),
    (script.server_error(504), errors.UpstreamTimeoutError, None),
    (script.Refused(status=400), errors.InvalidRequestError, None),
    (script.Refused(status=401), errors.UpstreamAuthError, None),
    (script.Refused(status=402), errors.UpstreamAuthError, None),
    (
        script.RefusedAs(script.Meaning.CONTEXT_TOO_LONG),
        errors.ContextLengthError,
        None,
    ),
    (script.RefusedAs(script.Meaning.OUT_OF_QUOTA), errors.UpstreamAuthError, None),
    (script.RefusedAs(script.Meaning.CONTENT_POLICY), errors.ContentFilterError, None),
    (script.RefusedAs(script.Meaning.UNKNOWN_MODEL), errors.ModelNotFoundError, None),
    (script.RefusedAs(script.Meaning.OVERLOADED), errors.UpstreamError, "overloaded"),
    (script.CutMidStream(after=2), errors.StreamCutError, None),
    (script.CutMidStream(after=0), errors.StreamCutError, None),
    (script.HalfClose(), errors.StreamCutError, None),
    (script.EndWithoutFinish(), errors.StreamCutError, None),
    (script.Happy(done=False), errors.StreamCutError, None),
    (script.ErrorInStream(), errors.UpstreamError, None),
    (script.RawAnswer(), errors.UpstreamProtocolError, "wrong_content_type"),
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


@pytest.mark.parametrize(
    ("fault", "error_class", "code"),
    FAULTS,
    ids=[f"{type(f).__name__}-{n}" for n, (f, *_) in enumerate(FAULTS)],
)
async def test_fault_has_its_error_and_the_next_request_works(
    over_socket: Any, fault: Any, error_class: type[Exception], code: str | None
) -> None:
    async with over_socket(fault) as pair:
        with pytest.raises(errors.InferenceError) as caught:
            await pair.ask()
        assert type(caught.value) is error_class
        if code is not None or error_class is not errors.UpstreamError:
            assert caught.value.code == code
        assert pair.runner.active == 0
        assert (await pair.ask())[-1].usage is not None


@pytest.mark.parametrize(
    "fault", [script.CutMidStream(), script.HalfClose(), script.RawAnswer()]
)
async def test_fault_in_a_whole_answer_has_its_error(
    over_socket: Any, fault: Any
) -> None:
    async with over_socket(fault) as pair:
        with pytest.raises((errors.StreamCutError, errors.UpstreamProtocolError)):
            await pair.ask(stream=False)


async def test_prompt_that_a_filter_stops_ends_in_a_refusal(over_socket: Any) -> None:
    async with over_socket(script.PromptBlocked()) as pair:
        chunks = await pair.ask()
        assert chunks[-2].finish_reason is FinishReason.CONTENT_FILTER
        assert chunks[-2].native_finish == "refusal"


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


async def test_refused_connection_is_a_connect_error(
    batch: Callable[..., ExecuteBatch],
) -> None:
    async with open_anthropic_upstream() as upstream:
        url = upstream.base_url
    wanted = Deployment(name="up", runtime="anthropic", options={"endpoint": url})
    async with open_anthropic_runner(wanted, fixed(None)) as runner:
        with pytest.raises(errors.UpstreamConnectError):
            async with runner.execute(batch()):
                pytest.fail("entered without an upstream")
        assert runner.active == 0


async def test_capabilities_are_those_of_the_deployments_model() -> None:
    wanted = Deployment(
        name="up",
        runtime="anthropic",
        model="claude-opus-5",
        serves=("mine",),
        options={"endpoint": "http://127.0.0.1:1"},
    )
    async with open_anthropic_runner(wanted, fixed(None)) as runner:
        assert "temperature" not in runner.capabilities.sampling
        assert "temperature" in runner.capabilities_for("claude-haiku-4-5").sampling


async def test_provider_without_a_key_is_not_asked() -> None:
    wanted = Deployment(name="up", runtime="anthropic")
    with pytest.raises(errors.UpstreamAuthError, match="no API key"):
        async with open_anthropic_runner(wanted, fixed(None)):
            pytest.fail("opened without a key")


async def test_answers_in_sequence_share_one_connection(over_socket: Any) -> None:
    async with over_socket(script.rate_limited(None), script.server_error()) as pair:
        for _ in range(2):
            with pytest.raises(errors.InferenceError):
                await pair.ask()
        for number in range(20):
            await pair.ask(stream=number % 2 == 0)
        assert pair.upstream.connections == 1


# --- cancellation ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "taken"),
    [
        (script.HangBeforeHeaders(), None),
        (script.HangMidStream(after=2), 2),
        (script.Happy(tokens=("x",) * 10_000, delay_s=0.001), 3),
    ],
)
async def test_upstream_sees_a_cancelled_request_leave_at_once(
    over_socket: Any,
    mock_clock: MockClock,
    batch: Callable[..., ExecuteBatch],
    behaviour: Behaviour,
    taken: int | None,
) -> None:
    mock_clock.rate = 1.0
    async with over_socket(behaviour) as pair:
        reached = trio.Event()

        async def ask() -> None:
            async with pair.runner.execute(
                batch(sampling=Sampling(max_tokens=20_000))
            ) as chunks:
                for _ in range(taken or 0):
                    await anext(chunks)
                reached.set()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await pair.upstream.wait_for_requests(1)
            if taken is not None:
                await reached.wait()
            assert pair.runner.active == 1
            stand_still(mock_clock)
            nursery.cancel_scope.cancel()
        assert pair.runner.active == 0
        await at_once(pair.upstream.requests[0].client_left.is_set, mock_clock)
        mock_clock.rate = 1.0
        assert (await pair.ask())[-1].usage is not None


# --- conversations with another model's part in them -------------------------------

_GO = {"role": "user", "content": "go"}
_ON = {"role": "user", "content": "on"}


def _thought(block: dict[str, str]) -> list[dict[str, Any]]:
    said = {"type": "text", "text": "Gone."}
    return [_GO, {"role": "assistant", "content": [block, said]}, _ON]


@pytest.mark.parametrize(
    "messages",
    [
        _thought({"type": "thinking", "thinking": "Hm.", "signature": ""}),
        _thought(
            {"type": "thinking", "thinking": "Hm.", "signature": "atomr:gemini:x"}
        ),
        _thought({"type": "redacted_thinking", "data": "atomr:gemini:x"}),
        [_GO, {"role": "system", "content": "be brief"}, _ON],
    ],
)
async def test_what_another_model_left_is_taken_out_before_claude_refuses_it(
    over_socket: Any, messages: list[Any]
) -> None:
    async with over_socket() as pair:
        chunks = await run(pair, passed(request(messages=messages, metadata={})))
        assert all(isinstance(chunk, TokenChunk) for chunk in chunks)
        sent = pair.upstream.requests[0]
        assert b"atomr:" not in sent.body
        assert b'"thinking"' not in sent.body


async def test_what_a_compatible_servers_model_left_is_its_own(
    over_socket: Any,
) -> None:
    block = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    body = request(messages=_thought(block))
    async with over_socket() as pair:
        with pytest.raises(errors.InvalidRequestError):  # the fake is Anthropic's
            await run(pair, passed(body, "kimi-k2"))
        sent = pair.upstream.requests[0]
        assert sent.body == body.replace(b'"mine"', b'"kimi-k2"')
