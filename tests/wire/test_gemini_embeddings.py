"""Embeddings, counts and lists in Google's format."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.usage import Usage
from atomr_infer.wire.gemini.counting import counted, decode_count
from atomr_infer.wire.gemini.embeddings import (
    EmbedMethod,
    batch_embedded,
    decode_embed,
    embedded,
    encode_embed,
    parse_batch_embed,
    parse_embed,
)
from atomr_infer.wire.gemini.models import model_list, model_object
from atomr_infer.wire.ingress import Call


def _call(body: Any) -> Call:
    return Call(
        request_id="e-1", body=msgspec.json.encode(body), model="emb", action="x"
    )


def _content(*texts: str) -> dict[str, Any]:
    return {"parts": [{"text": text} for text in texts]}


def _request(*inputs: str, **members: Any) -> EmbedRequest:
    return EmbedRequest(
        request_id="e-1",
        model="emb",
        inputs=inputs,
        dialect=Dialect.GEMINI,
        **members,
    )


# --- a client's request -----------------------------------------------------


def test_one_text_is_read_with_its_options() -> None:
    body = {
        "model": "models/other",
        "content": _content("a", "b"),
        "task_type": "RETRIEVAL_DOCUMENT",
        "title": "t",
        "outputDimensionality": 8,
        "autoTruncate": True,
    }
    assert parse_embed(_call(body)) == _request(
        "ab",
        task="RETRIEVAL_DOCUMENT",
        title="t",
        dimensions=8,
        extra={"autoTruncate": b"true"},
    )


def test_options_in_an_object_of_their_own_are_read() -> None:
    body = {
        "content": _content("a"),
        "embedContentConfig": {"taskType": "X", "outputDimensionality": 8},
    }
    assert parse_embed(_call(body)) == _request("a", task="X", dimensions=8)


def test_several_texts_are_one_request() -> None:
    body = {
        "requests": [
            {"model": "models/emb", "content": _content(text), "taskType": "X"}
            for text in "abc"
        ]
    }
    assert parse_batch_embed(_call(body)) == _request("a", "b", "c", task="X")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "content"),
        ({"content": {"parts": []}}, "content.parts"),
        ({"content": {"parts": [{"inlineData": {"data": ""}}]}}, "content.parts[0]"),
        ({"content": _content("a"), "outputDimensionality": 0}, "outputDimensionality"),
        ({"content": 3}, "content"),
    ],
)
def test_mistake_in_one_names_its_member(body: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_embed(_call(body))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": [{"content": _content("a")}] * 2049}, "requests"),
        ({"requests": [{"content": _content("a")}, {}]}, "requests[1].content"),
        (
            {
                "requests": [
                    {"content": _content("a")},
                    {"content": _content("a"), "taskType": "X"},
                ]
            },
            "requests[1]",
        ),
    ],
)
def test_mistake_in_several_names_its_member(body: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_batch_embed(_call(body))
    assert caught.value.param == param


# --- a client's answer ------------------------------------------------------


def test_answers_hold_the_vectors() -> None:
    usage = Usage(input_uncached=3)
    one = Embeddings(vectors=((0.5, 1.0),), usage=usage)
    two = Embeddings(vectors=((0.5,), (1.0,)), usage=usage)
    assert embedded(one) == (
        b'{"embedding":{"values":[0.5,1.0]},"usageMetadata":{"promptTokenCount":3}}'
    )
    assert batch_embedded(two) == (
        b'{"embeddings":[{"values":[0.5]},{"values":[1.0]}],'
        b'"usageMetadata":{"promptTokenCount":3}}'
    )


def test_count_is_the_total() -> None:
    assert counted(7) == (
        b'{"totalTokens":7,"promptTokensDetails":[{"modality":"TEXT","tokenCount":7}]}'
    )


def test_lists_name_their_models_as_resources() -> None:
    answer = msgspec.json.decode(model_list(["a", "b/c"]))
    assert [model["name"] for model in answer["models"]] == ["models/a", "models/b/c"]
    assert msgspec.json.decode(model_object("a")) == answer["models"][0]
    assert "generateContent" in answer["models"][0]["supportedGenerationMethods"]


# --- an upstream's request and answer ---------------------------------------


def test_members_of_its_own_dialect_go_along_and_others_do_not() -> None:
    extra = {"autoTruncate": b"false"}
    own = encode_embed(
        _request("a", extra=extra),
        ["a"],
        method=EmbedMethod.STUDIO,
        resource="models/x",
    )
    assert own == (
        b'{"requests":[{"model":"models/x","content":{"parts":[{"text":"a"}]},'
        b'"autoTruncate":false}]}'
    )
    foreign = EmbedRequest(
        request_id="e", model="x", inputs=("a",), extra={"encoding_format": b'"float"'}
    )
    assert b"encoding_format" not in encode_embed(
        foreign, ["a"], method=EmbedMethod.VERTEX, resource=""
    )


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (b'{"embedding":{"values":[1]}}', Usage(input_uncached=2, estimated=True)),
        (
            b'{"embeddings":[{"values":[1]}],"usageMetadata":{"promptTokenCount":5}}',
            Usage(input_uncached=5),
        ),
        (
            b'{"predictions":[{"embeddings":{"values":[1],'
            b'"statistics":{"token_count":4.0}}}]}',
            Usage(input_uncached=4),
        ),
        (
            b'{"embeddings":[{"values":[1]}],"usageMetadata":{"promptTokenCount":-5}}',
            Usage(input_uncached=2, estimated=True),
        ),
    ],
)
def test_each_form_of_an_answer_is_read(body: bytes, usage: Usage) -> None:
    assert decode_embed(body, ["a" * 5]) == Embeddings(vectors=((1.0,),), usage=usage)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"embeddings":[{"values":[1]},{"values":[1]}]}',
        b'{"embedding":{"values":["x"]}}',
        b'{"embedding":{}}',
    ],
)
def test_answer_without_a_vector_for_each_text_is_none(body: bytes) -> None:
    assert decode_embed(body, ["a"]) is None


def test_vectors_of_different_lengths_are_no_answer() -> None:
    body = b'{"embeddings":[{"values":[1]},{"values":[1,2]}]}'
    assert decode_embed(body, ["a", "b"]) is None


@pytest.mark.parametrize("body", [b"", b"{}", b'{"totalTokens":-1}', b"[" * 5000])
def test_count_that_is_none_is_told_so(body: bytes) -> None:
    assert decode_count(body) is None
