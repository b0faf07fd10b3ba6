"""A request to rank is read strictly, and its answer has the best first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.usage import Usage
from atomr_infer.wire.ingress import Call
from atomr_infer.wire.openai.rerank import RerankAsked, parse_rerank, rerank_body

BODY = {"model": "m", "query": "q", "documents": ["a", {"text": "b"}, "c"]}


def parse(**members: Any) -> RerankAsked:
    body = {name: value for name, value in members.items() if value is not None}
    return parse_rerank(Call(request_id="r", body=json.dumps(body).encode()))


def test_documents_are_texts_or_objects_with_one() -> None:
    request = EmbedRequest(request_id="r", model="m", inputs=("a", "b", "c"), query="q")
    assert parse(**BODY) == RerankAsked(request=request)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": 1}, "query"),
        ({"documents": None}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": [{"title": "a"}]}, "documents"),
        ({"documents": ["a"] * 2049}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"return_documents": 1}, "return_documents"),
        ({"model": None}, "model"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**{**BODY, **wrong})
    assert (caught.value.param or "").partition(".")[0].startswith(param)


def test_the_best_is_first_and_equals_stay_in_order() -> None:
    asked = parse(**BODY, top_n=2, return_documents=True)
    usage = Usage(input_uncached=7)
    found = Embeddings(vectors=((0.5,), (0.9,), (0.5,)), usage=usage)
    assert json.loads(rerank_body(asked, found, "m")) == {
        "id": "r",
        "model": "m",
        "results": [
            {"index": 1, "relevance_score": 0.9, "document": {"text": "b"}},
            {"index": 0, "relevance_score": 0.5, "document": {"text": "a"}},
        ],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
