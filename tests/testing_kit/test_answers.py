"""What an answer says is exact in each dialect: tokens, ends, refusals, odds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pytest

from atomr_infer.model.usage import Usage
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream_script import Finish, Happy, Meaning, ToolCall
from atomr_infer.testing.upstreams.answer import make_answer, split_words
from atomr_infer.testing.upstreams.anthropic import AnthropicDialect
from atomr_infer.testing.upstreams.gemini import GeminiDialect
from atomr_infer.testing.upstreams.litellm import LiteLLMDialect
from atomr_infer.testing.upstreams.openai import OpenAIDialect
from atomr_infer.testing.upstreams.plan import plan
from atomr_infer.testing.upstreams.schema_example import example_of
from atomr_infer.testing.upstreams.steps import Body, Head
from atomr_infer.wire.sse import SseReader
from tests.testing_kit.reading import understood

if TYPE_CHECKING:
    from atomr_infer.testing.upstreams.call import Call
    from atomr_infer.testing.upstreams.dialect import Dialect

TURN = {"role": "user", "content": "one two three"}
OPENAI, LITELLM = OpenAIDialect(), LiteLLMDialect()
ANTHROPIC, GEMINI = AnthropicDialect(), GeminiDialect()
FLASH = "/v1/models/gemini-2.5-flash"

EVERYTHING = Usage(
    input_uncached=1,
    cache_read=2,
    cache_write_5m=4,
    cache_write_1h=8,
    input_audio=16,
    input_image=32,
    tool_prompt=64,
    output_text=128,
    reasoning=256,
)


def chat(**members: Any) -> Call:
    body = {"model": "m", "messages": [TURN], **members}
    return understood(OPENAI, "/v1/chat/completions", body)


def respond(**members: Any) -> Call:
    body = {"model": "m", "input": "one two three", **members}
    return understood(OPENAI, "/v1/responses", body)


def message(**members: Any) -> Call:
    body = {"model": "m", "max_tokens": 99, "messages": [TURN], **members}
    return understood(ANTHROPIC, "/v1/messages", body)


def generate(**config: Any) -> Call:
    contents = [{"parts": [{"text": "one two three"}]}]
    body = {"contents": contents, "generationConfig": config}
    return understood(GEMINI, f"{FLASH}:generateContent", body)


def whole(dialect: Dialect, call: Call, behaviour: script.Behaviour) -> Any:
    """Return the JSON value of an answer that is not streamed."""
    steps = list(plan(behaviour, call=call, dialect=dialect))
    return msgspec.json.decode(
        b"".join(step.data for step in steps if isinstance(step, Body))
    )


def status(dialect: Dialect, call: Call, behaviour: script.Behaviour) -> int:
    steps = plan(behaviour, call=call, dialect=dialect)
    return next(step.status for step in steps if isinstance(step, Head))


def events(dialect: Dialect, call: Call, happy: Happy) -> list[Any]:
    frames = dialect.frames(call, make_answer(happy, call), done=True)
    data = b"".join(frame.data for frame in frames)
    return [
        msgspec.json.decode(event.data)
        for event in SseReader().feed(data)
        if event.data != b"[DONE]"
    ]


# --- tokens -----------------------------------------------------------------


def test_openai_counts_cached_tokens_in_and_reasoning_too() -> None:
    answer = whole(OPENAI, chat(), Happy(usage=EVERYTHING))
    assert answer["usage"] == {
        "prompt_tokens": 127,
        "completion_tokens": 384,
        "total_tokens": 511,
        "prompt_tokens_details": {
            "cached_tokens": 2,
            "audio_tokens": 16,
            "cache_write_tokens": 12,
            "image_tokens": 32,
        },
        "completion_tokens_details": {
            "reasoning_tokens": 256,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    assert whole(OPENAI, respond(), Happy(usage=EVERYTHING))["usage"] == {
        "input_tokens": 127,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 12},
        "output_tokens": 384,
        "output_tokens_details": {"reasoning_tokens": 256},
        "total_tokens": 511,
    }


def test_anthropic_counts_cached_tokens_apart() -> None:
    answer = whole(ANTHROPIC, message(), Happy(usage=EVERYTHING))
    assert answer["usage"] == {
        "input_tokens": 1 + 16 + 32 + 64,
        "cache_creation_input_tokens": 12,
        "cache_read_input_tokens": 2,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 4,
            "ephemeral_1h_input_tokens": 8,
        },
        "output_tokens": 384,
        "output_tokens_details": {"thinking_tokens": 256},
        "service_tier": "standard",
    }


def test_anthropic_says_the_prompts_tokens_first_and_all_of_them_last() -> None:
    seen = events(ANTHROPIC, message(stream=True), Happy(text="a b", usage=EVERYTHING))
    first, last = seen[0]["message"]["usage"], seen[-2]["usage"]
    assert (first["input_tokens"], first["output_tokens"]) == (113, 1)
    assert (last["input_tokens"], last["output_tokens"]) == (113, 384)


def test_gemini_counts_thoughts_and_tools_apart() -> None:
    answer = whole(GEMINI, generate(), Happy(usage=EVERYTHING))
    assert answer["usageMetadata"] == {
        "promptTokenCount": 63,
        "candidatesTokenCount": 128,
        "totalTokenCount": 511,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 15},
            {"modality": "IMAGE", "tokenCount": 32},
            {"modality": "AUDIO", "tokenCount": 16},
        ],
        "thoughtsTokenCount": 256,
        "cachedContentTokenCount": 2,
        "toolUsePromptTokenCount": 64,
    }


@pytest.mark.parametrize(
    ("happy", "usage"),
    [
        (Happy(text="a b"), Usage(input_uncached=3, output_text=2)),
        (
            Happy(text="a b", cached_tokens=2, reasoning_tokens=5),
            Usage(input_uncached=1, cache_read=2, output_text=2, reasoning=5),
        ),
        (
            Happy(text="", reasoning=("a", "b"), tool_calls=(ToolCall(),)),
            Usage(input_uncached=3, output_text=2, reasoning=2),
        ),
        (Happy(refusal="no way"), Usage(input_uncached=3, output_text=2)),
        (Happy(usage=False), None),
    ],
)
def test_a_word_or_a_piece_is_a_token(happy: Happy, usage: Usage | None) -> None:
    assert make_answer(happy, chat()).usage == usage


def test_usage_of_several_answers_is_the_sum() -> None:
    usage = make_answer(Happy(text="a b"), chat(n=3)).usage
    assert usage == Usage(input_uncached=3, output_text=6)


@pytest.mark.parametrize("stream", [False, True])
def test_usage_that_is_left_out_is_nowhere(stream: bool) -> None:
    call = chat(stream=stream)
    silent = Happy(usage=False)
    said = events(OPENAI, call, silent) if stream else [whole(OPENAI, call, silent)]
    assert not any("usage" in each for each in said)
    google = events(GEMINI, attrs.evolve(generate(), route="events"), silent)
    assert not any("usageMetadata" in each for each in google)


# --- ends -------------------------------------------------------------------

ENDS = {
    Finish.STOP: ("stop", "completed", "end_turn", "STOP"),
    Finish.STOP_SEQUENCE: ("stop", "completed", "stop_sequence", "STOP"),
    Finish.LENGTH: ("length", "incomplete", "max_tokens", "MAX_TOKENS"),
    Finish.TOOL_CALLS: ("tool_calls", "completed", "tool_use", "STOP"),
    Finish.CONTENT_FILTER: ("content_filter", "incomplete", "refusal", "SAFETY"),
    Finish.PAUSE: ("stop", "completed", "pause_turn", "STOP"),
    Finish.CONTEXT_FULL: (
        "length",
        "incomplete",
        "model_context_window_exceeded",
        "MAX_TOKENS",
    ),
}


@pytest.mark.parametrize("finish", Finish)
def test_each_end_has_the_dialects_word(finish: Finish) -> None:
    happy = Happy(finish=finish)
    assert (
        whole(OPENAI, chat(), happy)["choices"][0]["finish_reason"],
        whole(OPENAI, respond(), happy)["status"],
        whole(ANTHROPIC, message(), happy)["stop_reason"],
        whole(GEMINI, generate(), happy)["candidates"][0]["finishReason"],
    ) == ENDS[finish]


def test_native_end_is_said_as_it_is_given() -> None:
    happy = Happy(native_finish="MALFORMED_FUNCTION_CALL")
    (candidate,) = whole(GEMINI, generate(), happy)["candidates"]
    assert candidate["finishReason"] == "MALFORMED_FUNCTION_CALL"


@pytest.mark.parametrize(
    ("stop", "text", "finish", "matched"),
    [
        (["b c"], "a ", Finish.STOP_SEQUENCE, "b c"),
        (["z"], "a b c", Finish.STOP, None),
        (["c", "b"], "a ", Finish.STOP_SEQUENCE, "b"),
    ],
)
def test_stop_ends_an_answer_in_front_of_itself(
    stop: list[str], text: str, finish: Finish, matched: str | None
) -> None:
    answer = make_answer(Happy(text="a b c"), chat(stop=stop))
    assert (answer.text, answer.finish, answer.stop_sequence) == (text, finish, matched)


def test_anthropic_says_which_stop_sequence_it_was() -> None:
    answer = whole(ANTHROPIC, message(stop_sequences=["b"]), Happy(text="a b c"))
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "b")


def test_answer_that_is_cut_by_its_length_calls_nothing() -> None:
    happy = Happy(text="a b c", tool_calls=(ToolCall(),))
    answer = make_answer(happy, chat(max_tokens=2))
    assert (answer.text, answer.tool_calls) == ("a b", ())
    assert answer.finish is Finish.LENGTH


# --- refusals ---------------------------------------------------------------


def test_model_that_declines_says_so_in_the_dialects_place() -> None:
    happy = Happy(refusal="I will not.")
    chosen = whole(OPENAI, chat(), happy)["choices"][0]["message"]
    assert (chosen["content"], chosen["refusal"]) == (None, "I will not.")
    (item,) = whole(OPENAI, respond(), happy)["output"]
    assert item["content"] == [{"type": "refusal", "refusal": "I will not."}]
    said = whole(ANTHROPIC, message(), happy)
    assert (said["content"], said["stop_reason"]) == ([], "refusal")
    assert said["stop_details"]["explanation"] == "I will not."


def test_refusal_streams_in_pieces() -> None:
    seen = events(OPENAI, chat(stream=True), Happy(refusal="I will not."))
    deltas = [chunk["choices"][0]["delta"].get("refusal") for chunk in seen]
    assert [delta for delta in deltas if delta] == ["I", " will", " not."]


def test_blocked_prompt_is_refused_or_answered_with_nothing() -> None:
    blocked = script.PromptBlocked()
    assert whole(OPENAI, chat(), blocked)["error"]["code"] == "content_policy_violation"
    assert status(OPENAI, chat(), blocked) == 400
    azure = attrs.evolve(chat(), route="azure-chat")
    assert whole(OPENAI, azure, blocked)["error"]["code"] == "content_filter"
    said = whole(ANTHROPIC, message(), blocked)
    assert (said["content"], said["stop_reason"]) == ([], "refusal")
    fed_back = whole(GEMINI, generate(), blocked)
    assert "candidates" not in fed_back
    assert fed_back["promptFeedback"]["blockReason"] == "SAFETY"
    assert fed_back["usageMetadata"] == {"promptTokenCount": 3, "totalTokenCount": 3}


@pytest.mark.parametrize("meaning", Meaning)
@pytest.mark.parametrize("dialect", [OPENAI, LITELLM, ANTHROPIC, GEMINI])
def test_each_refusal_has_the_providers_status_and_words(
    dialect: Dialect, meaning: Meaning
) -> None:
    refused = dialect.refusals[meaning]
    call = chat()
    behaviour = script.RefusedAs(meaning)
    assert status(dialect, call, behaviour) == refused.status
    error = whole(dialect, call, behaviour)["error"]
    assert error["message"] == refused.message


# --- calls ------------------------------------------------------------------


def test_calls_in_parallel_have_indices_and_ids_of_their_own() -> None:
    happy = script.tool_calls(ToolCall(), ToolCall(name="g", arguments=(), id="mine"))
    (choice,) = whole(OPENAI, chat(), happy)["choices"]
    calls = choice["message"]["tool_calls"]
    assert [(c["id"], c["function"]["arguments"]) for c in calls] == [
        ("call_fake", '{"city": "Paris"}'),
        ("mine", "{}"),
    ]
    blocks = whole(ANTHROPIC, message(), happy)["content"]
    assert [(b["id"], b["input"]) for b in blocks] == [
        ("toolu_fake", {"city": "Paris"}),
        ("mine", {}),
    ]
    (candidate,) = whole(GEMINI, generate(), happy)["candidates"]
    first, second = candidate["content"]["parts"]
    assert first["functionCall"] == {"name": "get_weather", "args": {"city": "Paris"}}
    assert second == {"functionCall": {"name": "g", "args": {}, "id": "mine"}}
    assert "thoughtSignature" in first


def test_call_without_arguments_streams_no_piece_of_them() -> None:
    happy = script.tool_calls(ToolCall(name="g", arguments=()))
    seen = events(ANTHROPIC, message(stream=True), happy)
    kinds = [event["type"] for event in seen if event["type"] != "ping"]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


# --- reasoning --------------------------------------------------------------

THOUGHT = Happy(reasoning=("a ", "b"), text="c")


def test_reasoning_is_shown_to_who_asks_for_it() -> None:
    assert [b["type"] for b in whole(ANTHROPIC, message(), THOUGHT)["content"]] == [
        "text"
    ]
    asked = message(thinking={"type": "adaptive"})
    thinking, _ = whole(ANTHROPIC, asked, THOUGHT)["content"]
    assert thinking["thinking"] == "a b"
    (plain,) = whole(GEMINI, generate(), THOUGHT)["candidates"]
    assert plain["content"]["parts"] == [{"text": "c"}]
    shown = generate(thinkingConfig={"includeThoughts": True})
    (candidate,) = whole(GEMINI, shown, THOUGHT)["candidates"]
    thought, text = candidate["content"]["parts"]
    assert thought == {"text": "a b", "thought": True}
    assert "thoughtSignature" in text


def test_reasoning_that_is_not_shown_is_paid_for() -> None:
    answer = whole(ANTHROPIC, message(), THOUGHT)
    assert answer["usage"]["output_tokens_details"] == {"thinking_tokens": 2}


def test_thinking_that_is_omitted_is_signed_all_the_same() -> None:
    asked = message(thinking={"type": "adaptive", "display": "omitted"}, stream=True)
    seen = events(ANTHROPIC, asked, THOUGHT)
    deltas = [e["delta"]["type"] for e in seen if e["type"] == "content_block_delta"]
    assert deltas == ["signature_delta", "text_delta"]


def test_responses_summary_and_sealed_reasoning_are_asked_for_apart() -> None:
    (plain, _) = whole(OPENAI, respond(), THOUGHT)["output"]
    assert plain == {"id": "rs_fake", "type": "reasoning", "summary": []}
    asked = respond(
        reasoning={"summary": "auto"}, include=["reasoning.encrypted_content"]
    )
    (full, _) = whole(OPENAI, asked, THOUGHT)["output"]
    assert full["summary"] == [{"type": "summary_text", "text": "a b"}]
    assert full["encrypted_content"].startswith("gAAAA")


# --- odds -------------------------------------------------------------------


def test_log_probabilities_come_where_they_are_asked_for() -> None:
    (choice,) = whole(OPENAI, chat(logprobs=True, top_logprobs=2), Happy(text="a b"))[
        "choices"
    ]
    content = choice["logprobs"]["content"]
    assert [token["token"] for token in content] == ["a", " b"]
    assert [top["logprob"] for top in content[0]["top_logprobs"]] == [-0.25, -1.25]
    streamed = events(OPENAI, chat(logprobs=True, stream=True), Happy(text="a b"))
    said = [chunk["choices"][0]["logprobs"] for chunk in streamed]
    assert [bool(each) for each in said] == [False, True, True, False]
    (candidate,) = whole(
        GEMINI, generate(responseLogprobs=True, logprobs=1), Happy(text="a b")
    )["candidates"]
    chosen = candidate["logprobsResult"]["chosenCandidates"]
    assert [token["token"] for token in chosen] == ["a", " b"]


def test_several_answers_are_streamed_side_by_side() -> None:
    seen = events(OPENAI, chat(n=2, stream=True), Happy(text="a b"))
    order = [
        (chunk["choices"][0]["index"], chunk["choices"][0]["delta"].get("content"))
        for chunk in seen
    ]
    assert order == [(i, t) for t in ("", "a", " b", None) for i in (0, 1)]
    both = generate(candidateCount=2)
    (first, *_) = events(GEMINI, attrs.evolve(both, route="events"), Happy(text="a"))
    assert [candidate["index"] for candidate in first["candidates"]] == [0, 1]


def test_another_model_may_answer() -> None:
    happy = Happy(model="gpt-4o-2024-11-20")
    assert whole(OPENAI, chat(), happy)["model"] == "gpt-4o-2024-11-20"
    assert whole(GEMINI, generate(), happy)["modelVersion"] == "gpt-4o-2024-11-20"


def test_headers_of_a_script_are_sent_streamed_or_not() -> None:
    happy = Happy(headers=(("x-odd", "1"),))
    for call in (chat(), chat(stream=True)):
        head = next(
            step
            for step in plan(happy, call=call, dialect=OPENAI)
            if isinstance(step, Head)
        )
        assert ("x-odd", "1") in head.headers
        assert ("x-request-id", "req_fake") in head.headers


def test_litellm_says_cost_model_and_tags_in_headers() -> None:
    body = {"model": "m", "messages": [TURN], "metadata": {"tags": ["a", "b"]}}
    call = understood(LITELLM, "/v1/chat/completions", body)
    headers = dict(LITELLM.headers(call))
    assert headers["x-litellm-response-cost"] == "0.000123"
    assert headers["x-litellm-model-id"] == "id-of-m"
    assert headers["x-litellm-tags"] == "a,b"
    streamed = dict(LITELLM.headers(attrs.evolve(call, stream=True)))
    assert streamed["x-litellm-response-cost"] == "0"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1}),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2}, [1.5, 1.5]),
        ({"enum": ["x", "y"]}, "x"),
        ({"const": 7}, 7),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"type": ["boolean", "null"]}, True),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": "STRING"}}},
            "text",
        ),
        ({}, "text"),
    ],
)
def test_plainest_value_fits_its_schema(schema: dict[str, Any], value: object) -> None:
    assert example_of(schema) == value


def test_words_keep_the_space_in_front_of_them() -> None:
    assert split_words(" a  b\n") == (" a", "  b\n")
    assert split_words("") == ()
