"""What a request names without holding it, wherever a dialect lets it."""

from __future__ import annotations

import json
import timeit
from typing import Any

import pytest

from atomr_infer.errors import InvalidRequestError
from atomr_infer.wire.references import Reference, references

_FILE = "https://generativelanguage.googleapis.com/v1beta/files/x"


def named(members: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (each.name, each.param) for each in references(json.dumps(members).encode())
    ]


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"previous_response_id": "r"}, [("r", "previous_response_id")]),
        ({"Previous_Response_ID": "r"}, [("r", "Previous_Response_ID")]),
        ({"conversation": {"id": "c"}}, [("c", "conversation.id")]),
        ({"prompt": {"id": "pmpt_1"}}, [("pmpt_1", "prompt.id")]),
        (
            {"input": [{"type": "reasoning", "id": "rs_67cb", "summary": []}]},
            [("rs_67cb", "input[0].id")],
        ),
        (
            {"input": [{"type": "image_generation_call", "id": "ig_1"}]},
            [("ig_1", "input[0].id")],
        ),
        (
            {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
            [("cntr_1", "tools[0].container")],
        ),
        (
            {
                "tools": [
                    {
                        "type": "code_interpreter",
                        "container": {"type": "auto", "file_ids": ["f"]},
                    }
                ]
            },
            [("f", "tools[0].container.file_ids[0]")],
        ),
        (
            {"container": {"id": "c", "skills": [{"type": "custom", "skill_id": "s"}]}},
            [("c", "container.id"), ("s", "container.skills[0].skill_id")],
        ),
        (
            {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
            [("audio_1", "messages[0].audio.id")],
        ),
        (
            {"cachedContent": "cachedContents/1"},
            [("cachedContents/1", "cachedContent")],
        ),
        (
            {"contents": [{"parts": [{"file_data": {"file_uri": _FILE}}]}]},
            [("", "contents[0].parts[0].file_data.file_uri")],
        ),
        (
            {"contents": [{"parts": [{"fileData": {"fileUri": "files/x"}}]}]},
            [("", "contents[0].parts[0].fileData.fileUri")],
        ),
        (
            {"messages": [{"content": [{"image_url": {"url": "gs://bucket/a.png"}}]}]},
            [("", "messages[0].content[0].image_url.url")],
        ),
        (
            {"tools": [{"fileSearch": {"fileSearchStoreNames": ["s"]}}]},
            [("s", "tools[0].fileSearch.fileSearchStoreNames[0]")],
        ),
        (
            {"tools": [{"retrieval": {"vertexAiSearch": {"datastore": "d"}}}]},
            [("", "tools[0].retrieval")],
        ),
        (
            {"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]},
            [("v", "tools[0].vector_store_ids[0]")],
        ),
        (
            {"tools": [{"skills": [{"type": "custom", "skill_id": "s"}]}]},
            [("s", "tools[0].skills[0].skill_id")],
        ),
        (
            {"messages": [{"content": [{"image_url": {"url": _FILE.upper()}}]}]},
            [("", "messages[0].content[0].image_url.url")],
        ),
        ({"input": [{"_file_id": "f"}]}, [("f", "input[0]._file_id")]),
    ],
)
def test_a_name_is_found(members: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert named(members) == found


@pytest.mark.parametrize(
    "members",
    [
        {"previous_response_id": None, "conversation": None},
        {"prompt": "continue this file_id"},
        {"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "gA"}]},
        {"input": [{"type": "reasoning", "id": "rs_5f0c_0", "summary": []}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"container": {"skills": [{"type": "anthropic", "skill_id": "pptx"}]}},
        {"tools": [{"parameters": {"properties": {"file_id": {}}}}]},
        {"tools": [{"input_schema": {"properties": {"container": {}}}}]},
        {"messages": [{"content": [{"type": "tool_use", "input": {"file_id": "x"}}]}]},
        {"contents": [{"parts": [{"functionCall": {"args": {"file_id": "x"}}}]}]},
        {"input": [{"content": [{"annotations": [{"file_id": "f"}]}]}]},
        {
            "messages": [
                {"content": [{"type": "bash_code_execution_output", "file_id": "f"}]}
            ]
        },
        {
            "contents": [
                {"parts": [{"fileData": {"fileUri": "https://youtu.be/x"}}]},
                {"parts": [{"text": "see https://aiplatform.googleapis.com"}]},
            ]
        },
        {
            "metadata": {"file_id": "x"},
            "modalities": ["audio"],
            "audio": {"voice": "a"},
        },
    ],
)
def test_what_is_no_name_is_not_taken_for_one(members: dict[str, Any]) -> None:
    assert named(members) == []


def test_each_of_two_members_of_a_name_is_found() -> None:
    body = b'{"previous_response_id":"a","previous_response_id":"b"}'
    assert [each.name for each in references(body)] == ["a", "b"]


def test_a_name_behind_escapes_is_found() -> None:
    body = b'{"previous\\u005fresponse\\u005fid": "a", "x": {"file\\u005fid": "b"}}'
    assert references(body) == (
        Reference("a", "previous_response_id"),
        Reference("b", "x.file_id"),
    )


@pytest.mark.parametrize(
    "body", [b'{"file_id": ', b'{"file_id": "\xff"}', b'{"file_id":' + b"[" * 100_000]
)
def test_what_cannot_be_looked_through_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        references(body)


def test_a_long_request_is_looked_through_at_the_speed_of_a_copy() -> None:
    text = "The quick brown fox jumps over the lazy dog.\n" * 2_000
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    upper = body.upper()

    looked = min(timeit.repeat(lambda: references(body), number=1, repeat=9))
    copied = min(timeit.repeat(upper.lower, number=1, repeat=9))

    # It was 800 times as long when every letter was compared with every word.
    assert looked < 60 * copied
