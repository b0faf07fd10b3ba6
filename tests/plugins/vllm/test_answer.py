"""Outputs of vLLM's to chunks."""

from __future__ import annotations

import json

import pytest

from atomr_infer.errors import EngineError
from atomr_infer.model.batch import FinishReason, TokenChunk, ToolCallDelta, Usage
from atomr_infer.runtimes.decoding.tools import Forced
from atomr_infer_vllm.answer import Answer
from tests.plugins.vllm.shapes import Completion, Logprob, Output

SCHEMA = {"type": "object"}


def test_deltas_become_chunks_and_the_last_one_has_the_usage() -> None:
    answer = Answer("r", 10, warnings=("w",))
    assert answer.take(Output([Completion("a", [1])], num_cached_tokens=4)) == [
        TokenChunk(text="a", warnings=("w",))
    ]
    # Half a character has no text yet, and its token counts.
    assert answer.take(Output([Completion("", [2])])) == []
    end = Completion("b", [3], finish_reason="length")
    assert answer.take(Output([end], finished=True)) == [
        TokenChunk(text="b", finish_reason=FinishReason.LENGTH),
        TokenChunk(usage=Usage(input_uncached=6, cache_read=4, output_text=3)),
    ]


def test_a_token_that_ends_an_answer_is_no_part_of_it() -> None:
    end = Completion("b", [3, 0], finish_reason="stop")
    assert Answer("r", 1).take(Output([end], finished=True)) == [
        TokenChunk(text="b", finish_reason=FinishReason.STOP),
        TokenChunk(usage=Usage(input_uncached=1, output_text=1)),
    ]


def test_a_stop_string_is_told_and_its_tokens_count() -> None:
    end = Completion("b", [3, 4], finish_reason="stop", stop_reason="cat")
    assert Answer("r", 1).take(Output([end], finished=True)) == [
        TokenChunk(text="b", finish_reason=FinishReason.STOP, stop_sequence="cat"),
        TokenChunk(usage=Usage(input_uncached=1, output_text=2)),
    ]


def test_several_answers_come_beside_each_other() -> None:
    both = [Completion("a", [1]), Completion("b", [2], index=1)]
    assert Answer("r", 1).take(Output(both)) == [
        TokenChunk(text="a"),
        TokenChunk(text="b", index=1),
    ]


def test_an_answer_that_the_engine_gave_up_is_an_error() -> None:
    end = Completion("", [], finish_reason="abort")
    with pytest.raises(EngineError, match="vLLM ended the answer: abort"):
        Answer("r", 1).take(Output([end], finished=True))


def test_probabilities_are_written_as_openai_does() -> None:
    table = {
        7: Logprob(-2.0, "é"),
        8: Logprob(-0.5, "a"),
        9: Logprob(float("-inf"), "\ufffd"),
    }
    answer = Answer("r", 1, top_logprobs=1)
    (chunk,) = answer.take(Output([Completion("é", [7], logprobs=[table])]))
    assert chunk.logprobs is not None
    assert json.loads(chunk.logprobs) == {
        "content": [
            {
                "token": "é",
                "logprob": -2.0,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}],
            }
        ],
        "refusal": None,
    }
    (half,) = answer.take(Output([Completion("", [9], logprobs=[table])]))
    assert half.logprobs is not None
    told = json.loads(half.logprobs)["content"][0]
    assert (told["logprob"], told["bytes"]) == (-9999.0, None)


def test_the_probability_of_the_end_is_not_told() -> None:
    tables = [{3: Logprob(-1.0, "b")}, {0: Logprob(-1.0, "</s>")}]
    end = Completion("b", [3, 0], finish_reason="stop", logprobs=tables)
    chunk = Answer("r", 1).take(Output([end]))[0]
    assert chunk.logprobs is not None
    assert [t["token"] for t in json.loads(chunk.logprobs)["content"]] == ["b"]


def test_of_one_forced_tool_the_text_is_the_arguments_as_they_come() -> None:
    answer = Answer("r", 1, forced=Forced(schema=SCHEMA, name="f"))
    first = answer.take(Output([Completion('{"x":', [1])]))
    assert first == [
        TokenChunk(
            tool_calls=(ToolCallDelta(id="call-r-0-0", name="f", arguments='{"x":'),)
        )
    ]
    end = Completion("1}", [2, 0], finish_reason="stop")
    assert answer.take(Output([end], finished=True))[0] == TokenChunk(
        tool_calls=(ToolCallDelta(arguments="1}"),),
        finish_reason=FinishReason.TOOL_CALLS,
    )


def test_of_several_forced_tools_the_calls_come_when_they_are_whole() -> None:
    answer = Answer("r", 1, forced=Forced(schema=SCHEMA, name=None))
    assert answer.take(Output([Completion('[{"name": "f", ', [1])])) == []
    end = Completion('"parameters": {}}]', [2, 0], finish_reason="stop")
    assert answer.take(Output([end]))[0] == TokenChunk(
        tool_calls=(ToolCallDelta(id="call-r-0-0", name="f", arguments="{}"),),
        finish_reason=FinishReason.TOOL_CALLS,
    )


def test_calls_that_were_cut_are_not_told() -> None:
    answer = Answer("r", 1, forced=Forced(schema=SCHEMA, name=None))
    end = Completion('[{"name": "f", ', [2], finish_reason="length")
    assert answer.take(Output([end]))[0] == TokenChunk(
        finish_reason=FinishReason.LENGTH
    )


def test_calls_that_are_none_are_the_engines_fault() -> None:
    answer = Answer("r", 1, forced=Forced(schema=SCHEMA, name=None))
    end = Completion("hello", [2, 0], finish_reason="stop")
    with pytest.raises(EngineError, match="is not the tool calls that it must be"):
        answer.take(Output([end]))
