"""The routes whose answer is one value: embeddings, counts, lists of models.

Each dialect has its own request and answer; what lies between them is the same.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import UnsupportedFeatureError
from atomr_infer.gateway.access.entitled import entitled
from atomr_infer.gateway.exchanges.answer_headers import (
    cost_headers,
    request_id_headers,
    whole_headers,
)
from atomr_infer.gateway.exchanges.client_wishes import with_wishes
from atomr_infer.model.dialect import Dialect
from atomr_infer.policy.estimates.token_estimate import estimate_prompt_tokens
from atomr_infer.serving.requests.whole_calls import count_tokens, embed
from atomr_infer.wire.anthropic import ingress as anthropic
from atomr_infer.wire.anthropic import models as anthropic_models
from atomr_infer.wire.gemini import counting as gemini_counting
from atomr_infer.wire.gemini import embeddings as gemini_embeddings
from atomr_infer.wire.gemini import models as gemini_models
from atomr_infer.wire.gemini.request import parse_count
from atomr_infer.wire.openai import classify, rerank
from atomr_infer.wire.openai import embeddings as openai_embeddings
from atomr_infer.wire.openai import models as openai_models

if TYPE_CHECKING:
    from atomr_infer.gateway.exchanges.routes import Target
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.embeddings import EmbedRequest
    from atomr_infer.model.virtual_key import VirtualKey
    from atomr_infer.serving.requests.served import Served
    from atomr_infer.serving.shared import Serving
    from atomr_infer.wire.ingress import Call

ESTIMATED = "the tokens were estimated: the model's runtime does not count them"

_Headers = list[tuple[bytes, bytes]]


@attrs.frozen
class WholeAnswer:
    """An answer to send.

    Attributes:
        body: JSON.
        headers: who answered.
        took_s: seconds that were not ours: queue, attempts, the waits between
            them; None: nobody was asked.
    """

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    took_s: float | None = None


# --- embeddings -----------------------------------------------------------------


async def embeddings(serving: Serving, call: Call, target: Target) -> WholeAnswer:
    """Answer a request for vectors.

    Raises:
        InferenceError: it cannot be answered.
    """
    if target.dialect is Dialect.GEMINI:
        return await _gemini_embeddings(serving, call, target)
    if target.verb == "rerank":
        return await _ranked(serving, call, target)
    if target.verb == "classify":
        return await _classified(serving, call, target)
    asked = openai_embeddings.parse_embeddings(call)
    found = await embed(serving, _entitled(call, asked.request))
    model = found.value.model or asked.request.model
    body = openai_embeddings.embeddings_body(asked, found.value, model)
    return WholeAnswer(body, _headers(found.served, target), found.took_s)


async def _ranked(serving: Serving, call: Call, target: Target) -> WholeAnswer:
    asked = rerank.parse_rerank(call)
    found = await embed(serving, _entitled(call, asked.request))
    model = found.value.model or asked.request.model
    body = rerank.rerank_body(asked, found.value, model)
    return WholeAnswer(body, _headers(found.served, target), found.took_s)


async def _classified(serving: Serving, call: Call, target: Target) -> WholeAnswer:
    request = _entitled(call, classify.parse_classify(call))
    found = await embed(serving, request)
    model = found.value.model or request.model
    body = classify.classified_body(
        request, found.value, model=model, created_s=int(time.time())
    )
    return WholeAnswer(body, _headers(found.served, target), found.took_s)


async def _gemini_embeddings(
    serving: Serving, call: Call, target: Target
) -> WholeAnswer:
    if target.verb == "batchEmbedContents":
        request = _entitled(call, gemini_embeddings.parse_batch_embed(call))
        found = await embed(serving, request)
        body = gemini_embeddings.batch_embedded(found.value)
    else:
        request = _entitled(call, gemini_embeddings.parse_embed(call))
        found = await embed(serving, request)
        body = gemini_embeddings.embedded(found.value)
    return WholeAnswer(body, _headers(found.served, target), found.took_s)


def _entitled(call: Call, request: EmbedRequest) -> EmbedRequest:
    return entitled(request, call.visitor, call.headers)


def _headers(served: Served, target: Target) -> tuple[tuple[bytes, bytes], ...]:
    """Who answered, and what it cost."""
    return (*whole_headers(served, target.dialect), *cost_headers(served.cost))


# --- counts ---------------------------------------------------------------------


async def counts(serving: Serving, call: Call, target: Target) -> WholeAnswer:
    """Answer how many tokens a prompt has; an upper estimate where nobody knows.

    Raises:
        InferenceError: it cannot be answered.
    """
    batch = _counted_batch(call, target)
    batch = entitled(batch, call.visitor, call.headers)
    batch = with_wishes(serving, batch, call.headers)
    headers: _Headers
    took_s: float | None = None
    try:
        found = await count_tokens(serving, batch)
    except UnsupportedFeatureError:
        tokens = estimate_prompt_tokens(batch)
        headers = [
            *request_id_headers(call.request_id, target.dialect),
            (b"x-atomr-warnings", ESTIMATED.encode()),
        ]
    else:
        tokens, took_s = found.value, found.took_s
        headers = list(whole_headers(found.served, target.dialect))
    if target.dialect is Dialect.ANTHROPIC:
        return WholeAnswer(anthropic.counted(tokens), tuple(headers), took_s)
    return WholeAnswer(gemini_counting.counted(tokens), tuple(headers), took_s)


def _counted_batch(call: Call, target: Target) -> ExecuteBatch:
    if target.dialect is Dialect.ANTHROPIC:
        counting = attrs.evolve(call, action="count_tokens")
        return anthropic.MESSAGES.parse(counting).batch
    return parse_count(call).batch


# --- models ---------------------------------------------------------------------


def model_list(
    serving: Serving, dialect: Dialect, key: VirtualKey | None = None
) -> bytes:
    """Return the public model names in the caller's shape.

    Args:
        serving: what is served.
        dialect: the caller's.
        key: the virtual key that asks, which sees what it may use.
    """
    names = serving.table.owned_names()
    if key is not None:
        owners = dict(names)
        seen = key.visible(owners)
        names = tuple(
            (name, owners.get(name) or _owner(serving, name)) for name in seen
        )
    match dialect:
        case Dialect.ANTHROPIC:
            return anthropic_models.model_list(
                [name for name, _ in names], serving.started_at_s
            )
        case Dialect.GEMINI:
            return gemini_models.model_list([name for name, _ in names])
        case _:
            return openai_models.model_list(names, serving.started_at_s)


def _owner(serving: Serving, name: str) -> str:
    """Return who serves a part of a pattern."""
    return serving.table.resolve(name).deployment


def model_object(serving: Serving, dialect: Dialect, name: str) -> bytes:
    """Return one model in the caller's shape.

    Raises:
        ModelNotFoundError: there is none of that name.
    """
    route = serving.table.resolve(name)
    match dialect:
        case Dialect.ANTHROPIC:
            return anthropic_models.model_object(name, serving.started_at_s)
        case Dialect.GEMINI:
            return gemini_models.model_object(name)
        case _:
            return openai_models.model_object(
                name, route.deployment, serving.started_at_s
            )
