"""The gateway's own description, as ``GET /openapi.json`` gives it.

Pure.

Source: OpenAPI Specification 3.1.
"""

from __future__ import annotations

from functools import cache

import attrs
import msgspec

from atomr_infer._version import VERSION
from atomr_infer.gateway.api import openapi_schemas as schemas
from atomr_infer.gateway.api.openapi_schemas import Schema
from atomr_infer.model.dialect import Dialect

_JSON = "application/json"
_EVENTS = "text/event-stream"


@attrs.frozen(kw_only=True)
class Route:
    """An operation.

    Attributes:
        method: in lower case.
        path: with its parameters in braces.
        summary: what it does, in a few words.
        answer: of 200, as JSON.
        request: of the body; None: it takes none.
        dialect: whose errors it answers.
        streams: whether 200 may be a stream of events.
    """

    method: str
    path: str
    summary: str
    answer: Schema = attrs.field(hash=False)
    request: Schema | None = attrs.field(default=None, hash=False)
    dialect: Dialect = Dialect.OPENAI_CHAT
    streams: bool = False


def _gemini(verb: str, summary: str, request: Schema, answer: Schema) -> Route:
    return Route(
        method="post",
        path=f"/v1beta/models/{{model}}:{verb}",
        summary=summary,
        request=request,
        answer=answer,
        dialect=Dialect.GEMINI,
        streams=verb == "streamGenerateContent",
    )


def _tensors(
    method: str,
    path: str,
    summary: str,
    answer: Schema,
    request: Schema | None = None,
) -> Route:
    return Route(
        method=method,
        path=f"/v2{path}",
        summary=summary,
        request=request,
        answer=answer,
        dialect=Dialect.OPEN_INFERENCE,
    )


ROUTES = (
    Route(method="get", path="/healthz", summary="Is it alive", answer=schemas.ALIVE),
    Route(
        method="get", path="/readyz", summary="Does it serve", answer=schemas.READINESS
    ),
    Route(
        method="get", path="/v1/models", summary="List models", answer=schemas.MODELS
    ),
    Route(
        method="get",
        path="/v1/models/{model}",
        summary="Show a model",
        answer=schemas.MODELS,
    ),
    Route(
        method="post",
        path="/v1/chat/completions",
        summary="Create a chat completion",
        request=schemas.CHAT,
        answer=schemas.CHAT_ANSWER,
        streams=True,
    ),
    Route(
        method="post",
        path="/v1/completions",
        summary="Continue a text",
        request=schemas.COMPLETION,
        answer=schemas.COMPLETION_ANSWER,
        streams=True,
    ),
    Route(
        method="post",
        path="/v1/responses",
        summary="Create a response",
        request=schemas.RESPONSE,
        answer=schemas.RESPONSE_ANSWER,
        streams=True,
    ),
    Route(
        method="get",
        path="/v1/responses/{id}",
        summary="Show a stored response",
        answer=schemas.RESPONSE_ANSWER,
    ),
    Route(
        method="delete",
        path="/v1/responses/{id}",
        summary="Delete a stored response",
        answer=schemas.DELETED,
    ),
    Route(
        method="post",
        path="/v1/embeddings",
        summary="Embed texts",
        request=schemas.EMBEDDINGS,
        answer=schemas.EMBEDDINGS_ANSWER,
    ),
    Route(
        method="post",
        path="/v1/rerank",
        summary="Rank documents by a query",
        request=schemas.RERANK,
        answer=schemas.RERANK_ANSWER,
    ),
    Route(
        method="post",
        path="/v1/classify",
        summary="Classify texts",
        request=schemas.CLASSIFY,
        answer=schemas.CLASSIFIED,
    ),
    Route(
        method="post",
        path="/v1/messages",
        summary="Create a message",
        request=schemas.MESSAGES,
        answer=schemas.MESSAGE_ANSWER,
        dialect=Dialect.ANTHROPIC,
        streams=True,
    ),
    Route(
        method="post",
        path="/v1/messages/count_tokens",
        summary="Count a message's tokens",
        request=schemas.COUNT_TOKENS,
        answer=schemas.COUNTED,
        dialect=Dialect.ANTHROPIC,
    ),
    _gemini(
        "generateContent",
        "Generate content",
        schemas.GENERATE_CONTENT,
        schemas.CONTENT_ANSWER,
    ),
    _gemini(
        "streamGenerateContent",
        "Generate content, streamed",
        schemas.GENERATE_CONTENT,
        schemas.CONTENT_STREAM,
    ),
    _gemini(
        "countTokens",
        "Count a prompt's tokens",
        schemas.COUNT_CONTENT,
        schemas.COUNTED_CONTENT,
    ),
    _gemini("embedContent", "Embed a text", schemas.EMBED_CONTENT, schemas.EMBEDDED),
    _gemini(
        "batchEmbedContents",
        "Embed texts",
        schemas.BATCH_EMBED_CONTENTS,
        schemas.BATCH_EMBEDDED,
    ),
    _tensors("get", "", "Tell who serves tensors", schemas.INDEX),
    _tensors("get", "/health/live", "Is it alive", schemas.ALIVE),
    _tensors("get", "/health/ready", "Does it serve", schemas.READINESS),
    _tensors("get", "/models/{model}", "Show what it takes", schemas.DESCRIBED),
    _tensors("get", "/models/{model}/ready", "Does it serve", schemas.MODEL_READY),
    _tensors(
        "post", "/models/{model}/infer", "Run it", schemas.INFERRED, schemas.INFER
    ),
)


@cache
def document() -> bytes:
    """Return the OpenAPI document as JSON."""
    paths: dict[str, dict[str, object]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "atomr-infer", "version": VERSION},
            "paths": paths,
            "components": {"securitySchemes": _SECURITY},
            "security": [{}, *({name: []} for name in _SECURITY)],
        }
    )


_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "x-goog-api-key": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
}


def _operation(route: Route) -> dict[str, object]:
    answers: dict[str, object] = {_JSON: {"schema": route.answer}}
    if route.streams:
        answers[_EVENTS] = {"schema": schemas.EVENT}
    failure = {_JSON: {"schema": schemas.ERRORS[route.dialect]}}
    if route.answer is schemas.READINESS:
        failure = {_JSON: {"schema": route.answer}}
    operation: dict[str, object] = {
        "summary": route.summary,
        "parameters": _parameters(route.path),
        "responses": {
            "200": {"description": "The answer", "content": answers},
            "default": {"description": "Why there is none", "content": failure},
        },
    }
    if route.request is not None:
        content = {_JSON: {"schema": route.request}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(path: str) -> list[dict[str, object]]:
    names = [piece.partition("}")[0] for piece in path.split("{")[1:]]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
        }
        for name in names
    ]
