"""OpenAI's dialect: its routes, keys and errors, and Azure's on the same models.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.testing.upstream_script import Meaning, Refused
from atomr_infer.testing.upstreams import openai_other
from atomr_infer.testing.upstreams.call import Operation
from atomr_infer.testing.upstreams.checks import Invalid, decode_object
from atomr_infer.testing.upstreams.dialect import Frame, Reply
from atomr_infer.testing.upstreams.openai_chat import chunks, completion
from atomr_infer.testing.upstreams.openai_other import (
    completion_call,
    embedding_call,
    embeddings,
)
from atomr_infer.testing.upstreams.openai_requests import chat_call
from atomr_infer.testing.upstreams.openai_response_requests import response_call
from atomr_infer.testing.upstreams.openai_responses import (
    error_event,
    events,
    response,
)
from atomr_infer.testing.upstreams.rate_limit import SlidingLimit
from atomr_infer.testing.upstreams.steps import EVENTS, Headers
from atomr_infer.wire.sse import KEEPALIVE, encode_event

if TYPE_CHECKING:
    from atomr_infer.testing.upstreams.answer import Answer
    from atomr_infer.testing.upstreams.call import Call, Members, Request

_AZURE = re.compile(r"/openai/deployments/([^/]+)(/.*)")
_MODEL = re.compile(r"/models/(.+)")

REFUSALS: Mapping[Meaning, Refused] = {
    Meaning.BAD_KEY: Refused(
        status=401,
        message="Incorrect API key provided",
        code="invalid_api_key",
    ),
    Meaning.CONTENT_POLICY: Refused(
        status=400,
        message="Your request was rejected as a result of our safety system.",
        code="content_policy_violation",
    ),
    Meaning.CONTEXT_TOO_LONG: Refused(
        status=400,
        message="This model's maximum context length is 8192 tokens. However, your"
        " messages resulted in 9000 tokens. Please reduce the length of the messages.",
        code="context_length_exceeded",
        param="messages",
    ),
    Meaning.OUT_OF_QUOTA: Refused(
        status=429,
        message="You exceeded your current quota, please check your plan and billing"
        " details.",
        type="insufficient_quota",
        code="insufficient_quota",
    ),
    Meaning.OVERLOADED: Refused(
        status=503,
        message="The server is currently overloaded, please try again later.",
        type="server_error",
        code="overloaded",
    ),
    Meaning.UNKNOWN_MODEL: Refused(
        status=404,
        message="The model `unknown` does not exist or you do not have access to it.",
        code="model_not_found",
    ),
}


@attrs.frozen
class _Target:
    """A path, taken apart.

    Attributes:
        path: below the version, such as ``/chat/completions``.
        deployment: Azure's name for a model; "": it is not Azure's form.
    """

    path: str
    deployment: str = ""


@attrs.frozen(kw_only=True)
class OpenAIDialect:
    """What OpenAI, Azure and servers with OpenAI's dialect speak.

    Attributes:
        models: what the list of models holds.
        strict: False takes members that OpenAI does not know, as other servers
            with its dialect do.
        limit: what answers say that there is; None: what they say usually.
    """

    models: Sequence[str] = ("fake-model",)
    strict: bool = True
    limit: SlidingLimit | None = None

    @property
    def name(self) -> str:
        """``openai``."""
        return "openai"

    @property
    def refusals(self) -> Mapping[Meaning, Refused]:
        """What OpenAI answers in each case."""
        return REFUSALS

    def base_url(self, origin: str) -> str:
        """Return the address with its version, as OpenAI's library wants it."""
        return f"{origin}/v1"

    def read(
        self, request: Request, api_keys: Collection[str]
    ) -> Call | Refused | Reply:
        """Return what a request asks, or how OpenAI refuses it."""
        target = _target(request)
        if target is None or not (allowed := _allowed(target.path)):
            message = f"Unknown request URL: {request.method} {request.path}."
            return Refused(status=404, message=message, code="unknown_url")
        if request.method != allowed:
            message = f"Not allowed to {request.method} on {request.path}."
            return Refused(status=405, message=message, code="method_not_supported")
        if api_keys and _key(request) not in api_keys:
            return REFUSALS[Meaning.BAD_KEY]
        if allowed == "GET":
            return self._model_list(target.path)
        try:
            members = decode_object(request.body)
            return self._call(target, members)
        except Invalid as error:
            return Refused(
                status=error.status,
                message=error.message,
                code=error.code,
                param=error.param,
            )

    def whole(self, call: Call, answer: Answer) -> object:
        """Return the JSON value of an answer that is not streamed."""
        if call.operation is Operation.EMBED:
            return embeddings(call)
        return _WHOLE[_route(call)](call, answer)

    def frames(self, call: Call, answer: Answer, *, done: bool) -> Iterator[Frame]:
        """Yield a streamed answer; ``done`` False leaves out ``[DONE]``."""
        return _FRAMES[_route(call)](call, answer, done=done)

    def blocked(self, call: Call) -> Answer | Refused:
        """Return the 400 of a prompt that a filter stops."""
        if call.route == "azure-chat":
            return Refused(
                status=400,
                message="The response was filtered due to the prompt triggering"
                " Azure OpenAI's content management policy.",
                code="content_filter",
                param="prompt",
            )
        return REFUSALS[Meaning.CONTENT_POLICY]

    def error(self, refused: Refused) -> tuple[object, Headers]:
        """Return the JSON value and the headers of an HTTP error."""
        wait = refused.retry_after
        headers = () if wait is None else (("retry-after", wait),)
        return error_members(refused), (*_ALWAYS, *headers, *refused.headers)

    def stream_error(self, call: Call, refused: Refused, *, first: bool) -> bytes:
        """Return the event of an error inside a stream."""
        if _route(call) == "responses":
            return error_event(refused.message, refused.code, refused.param)
        return encode_event(msgspec.json.encode(error_members(refused)))

    def malformed(self, call: Call) -> bytes:
        """Return an event whose data is the front part of a chunk."""
        return encode_event(b'{"choices": [{"del')

    def keepalive(self, call: Call) -> bytes:
        """Return a comment."""
        return KEEPALIVE

    def headers(self, call: Call) -> Headers:
        """Return headers of each answer that is not an error."""
        limits = _LIMITS if self.limit is None else told(self.limit)
        return (*_ALWAYS, *limits)

    def media_type(self, call: Call) -> str:
        """Return the content type of a streamed answer."""
        return EVENTS

    def _call(self, target: _Target, members: Members) -> Call:
        call = _READERS[target.path](
            members, model=target.deployment, strict=self.strict
        )
        if target.deployment:
            return attrs.evolve(call, route=f"azure-{call.route}")
        return call

    def _model_list(self, path: str) -> Reply | Refused:
        named = _MODEL.fullmatch(path)
        if named is None:
            models = [_model(name) for name in self.models]
            return Reply({"object": "list", "data": models})
        if named[1] in self.models:
            return Reply(_model(named[1]))
        return Refused(
            status=404,
            message=f"The model '{named[1]}' does not exist",
            code="model_not_found",
            param="model",
        )


def error_members(refused: Refused) -> dict[str, object]:
    """Return the JSON value of an error."""
    error = {
        "message": refused.message,
        "type": refused.type or _type(refused.status),
        "param": refused.param,
        "code": refused.code,
    }
    return {"error": error}


_ALWAYS: Headers = (("x-request-id", "req_fake"), ("openai-version", "2020-10-01"))
_LIMITS: Headers = (
    ("openai-processing-ms", "7"),
    ("x-ratelimit-limit-requests", "500"),
    ("x-ratelimit-limit-tokens", "30000"),
    ("x-ratelimit-remaining-requests", "499"),
    ("x-ratelimit-remaining-tokens", "29990"),
    ("x-ratelimit-reset-requests", "120ms"),
    ("x-ratelimit-reset-tokens", "20ms"),
)


def told(limit: SlidingLimit) -> Headers:
    """Return what is said of a limit, as of a minute of which one request is used."""
    found: list[tuple[str, str]] = []
    each = {
        "requests": (limit.requests, 1),
        "tokens": (limit.tokens, limit.tokens_each),
    }
    for what, (most, used) in each.items():
        if most is not None and used:
            a_minute = round(most * 60.0 / limit.window_s)
            found += [
                (f"x-ratelimit-limit-{what}", str(a_minute)),
                (f"x-ratelimit-remaining-{what}", str(a_minute - used)),
                (f"x-ratelimit-reset-{what}", f"{60_000 * used / a_minute:.0f}ms"),
            ]
    return tuple(found)


_READERS: Mapping[str, Callable[..., Call]] = {
    "/chat/completions": chat_call,
    "/completions": completion_call,
    "/embeddings": embedding_call,
    "/responses": response_call,
}


_WHOLE: Mapping[str, Callable[[Call, Answer], object]] = {
    "chat": completion,
    "completions": openai_other.completion,
    "responses": response,
}
_FRAMES: Mapping[str, Callable[..., Iterator[Frame]]] = {
    "chat": chunks,
    "completions": openai_other.completion_chunks,
    "responses": events,
}


def _route(call: Call) -> str:
    return call.route.removeprefix("azure-")


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _target(request: Request) -> _Target | None:
    path = request.path.removeprefix("/openai")
    if path.startswith("/v1/"):
        return _Target(path.removeprefix("/v1"))
    azure = _AZURE.fullmatch(request.path)
    if azure is not None and "api-version" in request.query:
        return _Target(azure[2], azure[1])
    return None


def _allowed(path: str) -> str | None:
    if path in _READERS:
        return "POST"
    return "GET" if path == "/models" or _MODEL.fullmatch(path) else None


def _key(request: Request) -> str | None:
    bearer = request.headers.get("authorization", "")
    return request.headers.get("api-key") or bearer.removeprefix("Bearer ")


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "fake"}
