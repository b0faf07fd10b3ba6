"""Gemini's dialect: AI Studio's routes and Vertex's, keys and errors.

Pure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import attrs
import msgspec

from atomr_infer.testing.upstream_script import Happy, Meaning, Refused
from atomr_infer.testing.upstreams.answer import Answer, make_answer
from atomr_infer.testing.upstreams.call import Call, Operation, Request
from atomr_infer.testing.upstreams.checks import Invalid, decode_object
from atomr_infer.testing.upstreams.dialect import Frame, Reply
from atomr_infer.testing.upstreams.gemini_content import (
    chunks,
    counted,
    embedded,
    enclose,
    response,
)
from atomr_infer.testing.upstreams.gemini_requests import METHODS, read_call

if TYPE_CHECKING:
    from atomr_infer.testing.upstreams.steps import Headers

ACCESS_TOKEN = "ya29.fake"
"""What the token route gives when the upstream asks for no key of its own."""

_STUDIO = re.compile(r"/(?:v1|v1beta|v1alpha)/models(?:/([^:]+))?(?::(\w+))?")
_VERTEX = re.compile(
    r"/(?:v1|v1beta1)/(?:projects/[^/]+/locations/[^/]+/)?publishers/google/models"
    r"(?:/([^:]+))?(?::(\w+))?"
)
_TOKEN = "/token"
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"

_STATUSES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

REFUSALS: Mapping[Meaning, Refused] = {
    Meaning.BAD_KEY: Refused(
        status=400,
        message="API key not valid. Please pass a valid API key.",
        code="API_KEY_INVALID",
    ),
    Meaning.CONTENT_POLICY: Refused(
        status=400, message="The request was blocked by the safety settings."
    ),
    Meaning.CONTEXT_TOO_LONG: Refused(
        status=400,
        message="The input token count (1200000) exceeds the maximum number of tokens"
        " allowed (1048575).",
    ),
    Meaning.OUT_OF_QUOTA: Refused(
        status=429,
        message="You exceeded your current quota, please check your plan and billing"
        " details.",
        code="RATE_LIMIT_EXCEEDED",
        retry_after="37",
    ),
    Meaning.OVERLOADED: Refused(
        status=503, message="The model is overloaded. Please try again later."
    ),
    Meaning.UNKNOWN_MODEL: Refused(
        status=404,
        message="models/unknown is not found for API version v1beta, or is not"
        " supported for generateContent. Call ListModels to see the list of available"
        " models and their supported methods.",
    ),
}

_TYPE = "type.googleapis.com/google.rpc."


@attrs.frozen(kw_only=True)
class _Target:
    """A path, taken apart.

    Attributes:
        vertex: whether it is one of Vertex's.
        model: its name; "": all of them.
        method: behind the colon; "": the model itself is asked for.
    """

    vertex: bool
    model: str
    method: str


@attrs.frozen(kw_only=True)
class GeminiDialect:
    """What Gemini speaks, on AI Studio and on Vertex.

    ``POST /token`` stands for Google's token service: it trades the assertion
    of a service account for an access token.

    Attributes:
        models: what the list of models holds.
    """

    models: Sequence[str] = ("gemini-2.5-flash", "gemini-3-pro")

    @property
    def name(self) -> str:
        """``gemini``."""
        return "gemini"

    @property
    def refusals(self) -> Mapping[Meaning, Refused]:
        """What Google answers in each case."""
        return REFUSALS

    def base_url(self, origin: str) -> str:
        """Return the address alone, as Google's library wants it."""
        return origin

    def read(
        self, request: Request, api_keys: Collection[str]
    ) -> Call | Refused | Reply:
        """Return what a request asks, or how Google refuses it."""
        if request.path == _TOKEN and request.method == "POST":
            return _access_token(request, api_keys)
        target = _target(request.path)
        wanted = "POST" if target is not None and target.method else "GET"
        if target is None or request.method != wanted:
            return Refused(status=404, message=f"Unknown path {request.path}")
        refused = _refuse_key(request, api_keys, vertex=target.vertex)
        if refused is not None:
            return refused
        if not target.method:
            return self._model_list(target)
        return _read_call(target, request)

    def whole(self, call: Call, answer: Answer) -> object:
        """Return the JSON value of an answer that is not streamed."""
        if call.operation is Operation.COUNT:
            return counted(call)
        if call.operation is Operation.EMBED:
            return embedded(call)
        return response(call, answer)

    def frames(self, call: Call, answer: Answer, *, done: bool) -> Iterator[Frame]:
        """Yield a streamed answer; ``done`` False leaves out an array's end."""
        return chunks(call, answer, done=done)

    def blocked(self, call: Call) -> Answer | Refused:
        """Return the answer with ``promptFeedback`` and no candidates."""
        return attrs.evolve(make_answer(Happy(tokens=()), call), blocked=True)

    def error(self, refused: Refused) -> tuple[object, Headers]:
        """Return the JSON value and the headers of an HTTP error."""
        wait = refused.retry_after
        headers = () if wait is None or wait.isdigit() else (("retry-after", wait),)
        return error_members(refused), (*headers, *refused.headers)

    def stream_error(self, call: Call, refused: Refused, *, first: bool) -> bytes:
        """Return the chunk of an error inside a stream."""
        data = enclose(call, msgspec.json.encode(error_members(refused)), first=first)
        return data if call.route == "events" else data + b"\n]\n"

    def malformed(self, call: Call) -> bytes:
        """Return a chunk that is the front part of a JSON value."""
        return enclose(call, b'{"candidates": [{"cont', first=False)

    def keepalive(self, call: Call) -> bytes:
        """Return a blank line: its library fails on anything else."""
        return b"\r\n"

    def headers(self, call: Call) -> Headers:
        """Return headers of each answer that is not an error."""
        return (("server-timing", "gfet4t7; dur=7"), ("vary", "Origin"))

    def media_type(self, call: Call) -> str:
        """Return the content type of a streamed answer."""
        if call.route == "events":
            return "text/event-stream"
        return "application/json; charset=UTF-8"

    def _model_list(self, target: _Target) -> Reply | Refused:
        if not target.model:
            kind = "publisherModels" if target.vertex else "models"
            return Reply({kind: [_model(name, target) for name in self.models]})
        if target.model in self.models:
            return Reply(_model(target.model, target))
        return Refused(status=404, message=f"models/{target.model} is not found")


def error_members(refused: Refused) -> dict[str, object]:
    """Return the JSON value of an error."""
    status = refused.type or _STATUSES.get(refused.status)
    if status is None:
        status = "INTERNAL" if refused.status >= 500 else "INVALID_ARGUMENT"
    details: list[dict[str, Any]] = []
    if refused.code is not None:
        details.append(
            {
                "@type": f"{_TYPE}ErrorInfo",
                "reason": refused.code,
                "domain": "googleapis.com",
                "metadata": {"service": "generativelanguage.googleapis.com"},
            }
        )
    elif refused.param is not None or status == "INVALID_ARGUMENT":
        violation = {"field": refused.param or "", "description": refused.message}
        details.append({"@type": f"{_TYPE}BadRequest", "fieldViolations": [violation]})
    if refused.retry_after is not None and refused.retry_after.isdigit():
        delay = f"{refused.retry_after}s"
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": delay})
    error = {
        "code": refused.status,
        "message": refused.message,
        "status": status,
        "details": details,
    }
    return {"error": error}


def _read_call(target: _Target, request: Request) -> Call | Refused:
    if target.method not in METHODS:
        return REFUSALS[Meaning.UNKNOWN_MODEL]
    try:
        return read_call(
            target.method,
            decode_object(request.body),
            model=target.model,
            vertex=target.vertex,
            sse=request.query.get("alt") == "sse",
        )
    except Invalid as error:
        return Refused(status=error.status, message=error.message)


def _target(path: str) -> _Target | None:
    studio = _STUDIO.fullmatch(path)
    if studio is not None:
        return _Target(vertex=False, model=studio[1] or "", method=studio[2] or "")
    vertex = _VERTEX.fullmatch(path)
    if vertex is not None:
        return _Target(vertex=True, model=vertex[1] or "", method=vertex[2] or "")
    return None


def _refuse_key(
    request: Request, api_keys: Collection[str], *, vertex: bool
) -> Refused | None:
    key = request.headers.get("x-goog-api-key") or request.query.get("key")
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    given = token if vertex else key or token
    if not given:
        return _NO_TOKEN if vertex else _NO_KEY
    if not api_keys or given in api_keys:
        return None
    return _BAD_TOKEN if vertex else REFUSALS[Meaning.BAD_KEY]


_NO_KEY = Refused(
    status=403,
    message="Method doesn't allow unregistered callers (callers without established"
    " identity). Please use API Key or other form of API consumer identity to call this"
    " API.",
)
_NO_TOKEN = Refused(
    status=401,
    message="Request is missing required authentication credential. Expected OAuth 2"
    " access token, login cookie or other valid authentication credential.",
    code="CREDENTIALS_MISSING",
)
_BAD_TOKEN = Refused(
    status=401,
    message="Request had invalid authentication credentials. Expected OAuth 2 access"
    " token, login cookie or other valid authentication credential.",
    code="ACCESS_TOKEN_EXPIRED",
)


def _model(name: str, target: _Target) -> dict[str, object]:
    prefix = "publishers/google/models" if target.vertex else "models"
    return {
        "name": f"{prefix}/{name}",
        "version": "001",
        "displayName": name,
        "description": "A fake.",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
        "temperature": 1,
        "topP": 0.95,
        "topK": 64,
    }


# --- the token service ------------------------------------------------------


def _access_token(request: Request, api_keys: Collection[str]) -> Reply | Refused:
    form = parse_qs(request.body.decode("utf-8", "replace"))
    if form.get("grant_type") != [_JWT_GRANT]:
        return Refused(status=400, message="Unsupported grant type")
    claims = _claims(form.get("assertion", [""])[0])
    missing = {"iss", "scope", "aud", "iat", "exp"} - set(claims)
    if missing:
        return Refused(status=400, message=f"Invalid JWT: {sorted(missing)} missing")
    token = min(api_keys, default=ACCESS_TOKEN)
    return Reply({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})


def _claims(assertion: str) -> Mapping[str, object]:
    """Return what a JWT says; nothing when it is none.  Its signature is not read."""
    parts = assertion.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=="))
    except (binascii.Error, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}
