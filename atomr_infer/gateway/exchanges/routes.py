"""Which path is what, in which dialect.

Three dialects share one address, and two share ``/v1/models``: the caller's
headers tell them apart there.  A model's name may hold ``/`` and ``:``, so
Gemini's action is what follows the last colon.

An error's dialect follows the path too, whatever is wrong with the request.

Pure.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.dialect import Dialect

if TYPE_CHECKING:
    from collections.abc import Mapping


class Action(Enum):
    """What a route does."""

    INDEX = "index"
    HEALTH = "health"
    READY = "ready"
    OPENAPI = "openapi"
    MODELS = "models"
    MODEL = "model"
    GENERATE = "generate"
    EMBED = "embed"
    COUNT_TOKENS = "count tokens"
    TENSORS = "tensors"
    RESPONSE = "response"
    FORGET_RESPONSE = "forget response"


OPEN_TO_ALL = frozenset({Action.HEALTH, Action.READY, Action.OPENAPI})
"""What a probe asks for, which has no key, and what says how to ask."""


ASKS_A_MODEL = frozenset(
    {Action.GENERATE, Action.EMBED, Action.COUNT_TOKENS, Action.TENSORS}
)
"""What a node that drains leaves to others."""


@attrs.frozen(kw_only=True)
class Target:
    """A route that exists.

    Attributes:
        action: what it does.
        dialect: whose format it reads and writes.
        model: the model's name, or a stored response's, where the path holds it.
        verb: Gemini's action, or what is asked of tensors, where the path holds it.
    """

    action: Action
    dialect: Dialect = Dialect.OPENAI_CHAT
    model: str | None = None
    verb: str | None = None

    @property
    def is_json(self) -> bool:
        """Whether its body is JSON, which may name what upstreams keep."""
        return self.action is not Action.TENSORS


@attrs.frozen(kw_only=True)
class NoRoute:
    """A path that is not served.

    Attributes:
        dialect: whose error the caller understands.
    """

    dialect: Dialect


@attrs.frozen(kw_only=True)
class WrongMethod:
    """A path that is served, but not so.

    Attributes:
        dialect: whose error the caller understands.
        allow: the methods that it takes.
    """

    dialect: Dialect
    allow: tuple[str, ...]


def _generate(dialect: Dialect) -> Mapping[str, Target]:
    return {"POST": Target(action=Action.GENERATE, dialect=dialect)}


_PATHS: Mapping[str, Mapping[str, Target]] = {
    "/": {"GET": Target(action=Action.INDEX)},
    "/healthz": {"GET": Target(action=Action.HEALTH)},
    "/readyz": {"GET": Target(action=Action.READY)},
    "/openapi.json": {"GET": Target(action=Action.OPENAPI)},
    "/v1/chat/completions": _generate(Dialect.OPENAI_CHAT),
    "/v1/completions": _generate(Dialect.OPENAI_COMPLETIONS),
    "/v1/responses": _generate(Dialect.OPENAI_RESPONSES),
    "/v1/messages": _generate(Dialect.ANTHROPIC),
    "/v1/messages/count_tokens": {
        "POST": Target(action=Action.COUNT_TOKENS, dialect=Dialect.ANTHROPIC)
    },
    "/v1/embeddings": {"POST": Target(action=Action.EMBED)},
    "/v1/rerank": {"POST": Target(action=Action.EMBED, verb="rerank")},
    "/v1/classify": {"POST": Target(action=Action.EMBED, verb="classify")},
    "/v2": {"GET": Target(action=Action.INDEX, dialect=Dialect.OPEN_INFERENCE)},
    "/v2/health/live": {
        "GET": Target(action=Action.HEALTH, dialect=Dialect.OPEN_INFERENCE)
    },
    "/v2/health/ready": {
        "GET": Target(action=Action.READY, dialect=Dialect.OPEN_INFERENCE)
    },
}

_RESPONSES = "/v1/responses/"

_GEMINI_MODELS = ("/v1beta/models/", "/v1/models/")

_GEMINI_VERBS: Mapping[str, Action] = {
    "generateContent": Action.GENERATE,
    "streamGenerateContent": Action.GENERATE,
    "countTokens": Action.COUNT_TOKENS,
    "embedContent": Action.EMBED,
    "batchEmbedContents": Action.EMBED,
}

_TENSORS = "/v2/models/"

# Behind a model's name; one version stands for all, since none has a number.
_TENSOR_VERBS = {"/infer": ("POST", "infer"), "/ready": ("GET", "ready")}
_VERSION = "/versions/1"

_TWO_VERSIONS = ("/v1/v1/", "/v1/v1beta/", "/v1beta/v1/", "/v1beta/v1beta/")

_OPENAI_ROOTS = (
    "/chat/",
    "/completions",
    "/embeddings",
    "/rerank",
    "/classify",
    "/responses",
    "/models",
)


def endpoints() -> tuple[str, ...]:
    """Return what is served, as a person writes it."""
    listed = [
        f"{method} {path}" for path, methods in _PATHS.items() for method in methods
    ]
    listed += ["GET /v1/responses/{id}", "DELETE /v1/responses/{id}"]
    listed += ["GET /v1/models", "GET /v1/models/{model}"]
    listed += [f"POST /v1beta/models/{{model}}:{verb}" for verb in _GEMINI_VERBS]
    listed += [f"GET {_TENSORS}{{model}}"]
    listed += [
        f"{method} {_TENSORS}{{model}}{ending}"
        for ending, (method, _) in _TENSOR_VERBS.items()
    ]
    return tuple(listed)


def find(
    method: str, path: str, headers: Mapping[str, str]
) -> Target | NoRoute | WrongMethod:
    """Return the route of a request.

    Args:
        method: in upper case; HEAD is answered as GET is.
        path: percent-decoded, without the query.
        headers: by lower-case name.
    """
    path = _normal(path)
    method = "GET" if method == "HEAD" else method
    methods = _PATHS.get(path)
    if methods is None:
        methods = _models(path, headers)
    if methods is None:
        return NoRoute(dialect=dialect_of(path, headers))
    target = methods.get(method)
    if target is None and method == "POST" and path.startswith("/v1beta/"):
        return NoRoute(dialect=Dialect.GEMINI)  # an action that nobody knows
    if target is None:
        return WrongMethod(dialect=dialect_of(path, headers), allow=_allowed(methods))
    return target


def _allowed(methods: Mapping[str, Target]) -> tuple[str, ...]:
    head = ("HEAD",) if "GET" in methods else ()
    return (*methods, *head, "OPTIONS")


def _normal(path: str) -> str:
    """Return a path without its last slash, and with one version in front."""
    path = path.rstrip("/") or "/"
    # Clients that were given a base URL with a version, and add their own.
    if path.startswith(_TWO_VERSIONS):
        path = path[path.index("/", 1) :]
    # Clients that were given a base URL without /v1.
    if path.startswith(_OPENAI_ROOTS):
        return "/v1" + path
    return path


def _models(path: str, headers: Mapping[str, str]) -> Mapping[str, Target] | None:
    dialect = dialect_of(path, headers)
    if path in ("/v1/models", "/v1beta/models"):
        return {"GET": Target(action=Action.MODELS, dialect=dialect)}
    if path.startswith(_RESPONSES):
        name = path.removeprefix(_RESPONSES)
        if "/" in name:
            return None  # what stands behind a response is not here
        return {
            "GET": Target(action=Action.RESPONSE, model=name),
            "DELETE": Target(action=Action.FORGET_RESPONSE, model=name),
        }
    if path.startswith(_TENSORS):
        return _tensors(path.removeprefix(_TENSORS))
    for prefix in _GEMINI_MODELS:
        if path.startswith(prefix):
            return _model(path.removeprefix(prefix), dialect)
    return None


def _model(name: str, dialect: Dialect) -> Mapping[str, Target]:
    model, colon, verb = name.rpartition(":")
    if colon and verb in _GEMINI_VERBS:
        target = Target(
            action=_GEMINI_VERBS[verb],
            dialect=Dialect.GEMINI,
            model=model,
            verb=verb,
        )
        return {"POST": target}
    return {"GET": Target(action=Action.MODEL, dialect=dialect, model=name)}


def _tensors(rest: str) -> Mapping[str, Target]:
    """Return the routes of ``NAME``, of ``NAME/infer`` and of ``NAME/ready``."""
    method, verb = "GET", "describe"
    for ending, asked in _TENSOR_VERBS.items():
        if rest.endswith(ending):
            rest, (method, verb) = rest.removesuffix(ending), asked
    target = Target(
        action=Action.TENSORS,
        dialect=Dialect.OPEN_INFERENCE,
        model=rest.removesuffix(_VERSION),
        verb=verb,
    )
    return {method: target}


def dialect_of(path: str, headers: Mapping[str, str]) -> Dialect:
    """Return the dialect that a caller of ``path`` speaks.

    >>> dialect_of("/v1/models", {"x-goog-api-key": "k"})
    <Dialect.GEMINI: 'gemini'>
    >>> dialect_of("/v1/models", {"anthropic-version": "2023-06-01"})
    <Dialect.ANTHROPIC: 'anthropic'>
    """
    if path.startswith("/v1beta/") or path.rpartition(":")[2] in _GEMINI_VERBS:
        return Dialect.GEMINI
    if path == "/v2" or path.startswith("/v2/"):
        return Dialect.OPEN_INFERENCE
    if path.startswith("/v1/messages") or "anthropic-version" in headers:
        return Dialect.ANTHROPIC
    if "x-goog-api-key" in headers:
        return Dialect.GEMINI
    return Dialect.OPENAI_CHAT
