"""The route that says which label each text has.

OpenAI has none; this is vLLM's shape, with the probability of each label by its name.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.wire.fields import Fields, decode, invalid
from atomr_infer.wire.openai.chat_request import model_name

if TYPE_CHECKING:
    from atomr_infer.wire.ingress import Call

_MAX_INPUTS = 2048
_INPUT = "a string or a list of strings"


def parse_classify(call: Call) -> EmbedRequest:
    """Return the request that a call's body holds.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    root = Fields.of_body(call.body, wanted="with 'model' and 'input'")
    model = model_name(root)
    return EmbedRequest(
        request_id=call.request_id,
        model=model,
        inputs=_inputs(root),
        classifies=True,
        user=root.text("user"),
        dialect=Dialect.OPENAI_CHAT,
    )


def _inputs(root: Fields) -> tuple[str, ...]:
    raw = root.raw("input")
    if raw is None:
        raise invalid("input", "is required")
    if bytes(raw).startswith(b'"'):
        inputs = [decode("input", raw, str, wanted=_INPUT)]
    else:
        inputs = decode("input", raw, list[str], wanted=_INPUT)
    if not inputs:
        raise invalid("input", "must not be empty")
    if len(inputs) > _MAX_INPUTS:
        problem = f"must hold at most {_MAX_INPUTS} inputs, not {len(inputs)}"
        raise invalid("input", problem)
    for at, each in enumerate(inputs):
        if not each:
            raise invalid(f"input[{at}]", "must not be empty")
    return tuple(inputs)


def classified_body(
    request: EmbedRequest, found: Embeddings, *, model: str, created_s: int
) -> bytes:
    """Return the answer: the likeliest label of each text, and all their numbers.

    Args:
        request: what was asked.
        found: a number for each label and text.
        model: the model that served.
        created_s: Unix time in seconds.
    """
    tokens = found.usage.prompt_tokens
    return msgspec.json.encode(
        {
            "id": f"classify-{request.request_id}",
            "object": "list",
            "created": created_s,
            "model": model,
            "labels": found.labels,
            "data": [
                _classified(at, vector, found.labels)
                for at, vector in enumerate(found.vectors)
            ],
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
            },
        }
    )


def _classified(
    at: int, vector: tuple[float, ...], labels: tuple[str, ...]
) -> dict[str, Any]:
    best = max(range(len(vector)), key=vector.__getitem__)
    return {
        "index": at,
        "label": labels[best],
        "probs": vector,
        "num_classes": len(vector),
    }
