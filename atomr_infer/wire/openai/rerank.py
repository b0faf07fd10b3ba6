"""The route that ranks documents by how well they answer a query.

OpenAI has none; this is the shape that Cohere, Jina, vLLM and others share.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.wire.fields import Fields, decode, invalid
from atomr_infer.wire.openai.chat_request import model_name

if TYPE_CHECKING:
    from atomr_infer.wire.ingress import Call

_MAX_DOCUMENTS = 2048
_DOCUMENTS = 'a list of strings, or of objects with a "text"'


class _Document(msgspec.Struct):
    text: str


@attrs.frozen(kw_only=True)
class RerankAsked:
    """A request, read.

    Attributes:
        request: its canonical form.
        top_n: how many documents are wanted; None: all.
        with_documents: True when their texts are wanted, too.
    """

    request: EmbedRequest
    top_n: int | None = None
    with_documents: bool = False


def parse_rerank(call: Call) -> RerankAsked:
    """Return the request that a call's body holds.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    root = Fields.of_body(call.body, wanted="with 'model', 'query' and 'documents'")
    model = model_name(root)
    query = root.text("query")
    if not query:
        raise invalid("query", "is required")
    documents = _documents(root)
    request = EmbedRequest(
        request_id=call.request_id,
        model=model,
        inputs=documents,
        query=query,
        user=root.text("user"),
        dialect=Dialect.OPENAI_CHAT,
    )
    return RerankAsked(
        request=request,
        top_n=root.whole("top_n", 1, 2**20),
        with_documents=root.flag("return_documents") or False,
    )


def _documents(root: Fields) -> tuple[str, ...]:
    raw = root.raw("documents")
    if raw is None:
        raise invalid("documents", "is required")
    items = decode("documents", raw, list[str | _Document], wanted=_DOCUMENTS)
    texts = tuple(item if isinstance(item, str) else item.text for item in items)
    if not texts:
        raise invalid("documents", "must not be empty")
    if len(texts) > _MAX_DOCUMENTS:
        problem = f"must hold at most {_MAX_DOCUMENTS} documents, not {len(texts)}"
        raise invalid("documents", problem)
    for at, text in enumerate(texts):
        if not text:
            raise invalid(f"documents[{at}]", "must not be empty")
    return texts


def rerank_body(asked: RerankAsked, found: Embeddings, model: str) -> bytes:
    """Return the answer: the best document first, equals in the client's order.

    Args:
        asked: the request.
        found: a number for each document.
        model: the model that served.
    """
    scores = [vector[0] for vector in found.vectors]
    order = sorted(range(len(scores)), key=lambda at: -scores[at])
    texts = asked.request.inputs
    results: list[dict[str, object]] = []
    for at in order[: asked.top_n]:
        result: dict[str, object] = {"index": at, "relevance_score": scores[at]}
        if asked.with_documents:
            result["document"] = {"text": texts[at]}
        results.append(result)
    tokens = found.usage.prompt_tokens
    return msgspec.json.encode(
        {
            "id": asked.request.request_id,
            "model": model,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )
