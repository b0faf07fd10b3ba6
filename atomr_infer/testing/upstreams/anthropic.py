"""Anthropic's dialect: its routes, keys, versions and errors.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import attrs
import msgspec

from atomr_infer.testing.upstream_script import Finish, Happy, Meaning, Refused
from atomr_infer.testing.upstreams.answer import Answer, make_answer
from atomr_infer.testing.upstreams.anthropic_messages import PING, events, message
from atomr_infer.testing.upstreams.anthropic_requests import VERSIONS, message_call
from atomr_infer.testing.upstreams.call import Call, Operation, Request
from atomr_infer.testing.upstreams.checks import Invalid, decode_object
from atomr_infer.testing.upstreams.dialect import Frame, Reply
from atomr_infer.testing.upstreams.steps import EVENTS, Headers
from atomr_infer.wire.sse import encode_event

REQUEST_ID = "req_fake"

_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

REFUSALS: Mapping[Meaning, Refused] = {
    Meaning.BAD_KEY: Refused(status=401, message="invalid x-api-key"),
    Meaning.CONTENT_POLICY: Refused(
        status=400, message="Output blocked by content filtering policy"
    ),
    Meaning.CONTEXT_TOO_LONG: Refused(
        status=400, message="prompt is too long: 210000 tokens > 200000 maximum"
    ),
    Meaning.OUT_OF_QUOTA: Refused(
        status=400,
        message="Your credit balance is too low to access the Anthropic API. Please go"
        " to Plans & Billing to upgrade or purchase credits.",
    ),
    Meaning.OVERLOADED: Refused(status=529, message="Overloaded"),
    Meaning.UNKNOWN_MODEL: Refused(status=404, message="model: unknown"),
}

_LIMITS: Headers = (
    ("anthropic-organization-id", "00000000-0000-4000-8000-000000000000"),
    ("anthropic-ratelimit-requests-limit", "4000"),
    ("anthropic-ratelimit-requests-remaining", "3999"),
    ("anthropic-ratelimit-requests-reset", "2026-01-01T00:00:01Z"),
    ("anthropic-ratelimit-tokens-limit", "400000"),
    ("anthropic-ratelimit-tokens-remaining", "399000"),
    ("anthropic-ratelimit-tokens-reset", "2026-01-01T00:00:01Z"),
)
_ALWAYS: Headers = (("request-id", REQUEST_ID),)

_ROUTES: Mapping[str, bool] = {
    "/v1/messages": False,
    "/v1/messages/count_tokens": True,
}
"""Each path, and whether it only counts."""


@attrs.frozen(kw_only=True)
class AnthropicDialect:
    """What Anthropic speaks, in both versions of its API.

    Attributes:
        models: what the list of models holds.
    """

    models: Sequence[str] = ("claude-sonnet-4-5", "claude-opus-4-8")

    @property
    def name(self) -> str:
        """``anthropic``."""
        return "anthropic"

    @property
    def refusals(self) -> Mapping[Meaning, Refused]:
        """What Anthropic answers in each case."""
        return REFUSALS

    def base_url(self, origin: str) -> str:
        """Return the address alone, as Anthropic's library wants it."""
        return origin

    def read(
        self, request: Request, api_keys: Collection[str]
    ) -> Call | Refused | Reply:
        """Return what a request asks, or how Anthropic refuses it."""
        listing = request.path == "/v1/models" or request.path.startswith("/v1/models/")
        if request.path not in _ROUTES and not listing:
            return Refused(status=404, message="Not found")
        if request.method != ("GET" if listing else "POST"):
            return Refused(status=405, message="Method Not Allowed")
        refused = _refuse_key(request, api_keys) or _refuse_version(request)
        if refused is not None:
            return refused
        if listing:
            return self._model_list(request.path)
        try:
            return message_call(
                decode_object(request.body),
                version=request.headers["anthropic-version"],
                counting=_ROUTES[request.path],
                betas=request.headers.get("anthropic-beta", ""),
            )
        except Invalid as error:
            return Refused(status=error.status, message=error.message)

    def whole(self, call: Call, answer: Answer) -> object:
        """Return the JSON value of an answer that is not streamed."""
        if call.operation is Operation.COUNT:
            return {"input_tokens": call.prompt_tokens}
        return message(call, answer)

    def frames(self, call: Call, answer: Answer, *, done: bool) -> Iterator[Frame]:
        """Yield a streamed answer; ``done`` False leaves out ``message_stop``."""
        return events(call, answer, done=done)

    def blocked(self, call: Call) -> Answer | Refused:
        """Return the empty refusal that comes of a stopped prompt."""
        return make_answer(Happy(tokens=(), finish=Finish.CONTENT_FILTER), call)

    def error(self, refused: Refused) -> tuple[object, Headers]:
        """Return the JSON value and the headers of an HTTP error."""
        wait = refused.retry_after
        headers = () if wait is None else (("retry-after", wait),)
        again = ("x-should-retry", "true" if _is_worth_it(refused.status) else "false")
        members = {**error_members(refused), "request_id": REQUEST_ID}
        return members, (*_ALWAYS, again, *headers, *refused.headers)

    def stream_error(self, call: Call, refused: Refused, *, first: bool) -> bytes:
        """Return the event of an error inside a stream."""
        return encode_event(msgspec.json.encode(error_members(refused)), "error")

    def malformed(self, call: Call) -> bytes:
        """Return an event whose data is the front part of a delta."""
        return encode_event(b'{"type": "content_block_del', "content_block_delta")

    def keepalive(self, call: Call) -> bytes:
        """Return a ping."""
        return PING

    def headers(self, call: Call) -> Headers:
        """Return headers of each answer that is not an error."""
        return (*_ALWAYS, *_LIMITS)

    def media_type(self, call: Call) -> str:
        """Return the content type of a streamed answer."""
        return EVENTS

    def _model_list(self, path: str) -> Reply | Refused:
        if path == "/v1/models":
            return Reply(
                {
                    "data": [_model(name) for name in self.models],
                    "has_more": False,
                    "first_id": self.models[0],
                    "last_id": self.models[-1],
                }
            )
        name = path.removeprefix("/v1/models/")
        if name in self.models:
            return Reply(_model(name))
        return Refused(status=404, message=f"model: {name}")


def error_members(refused: Refused) -> dict[str, object]:
    """Return the JSON value of an error, without the request's id."""
    kind = refused.type or _TYPES.get(refused.status)
    if kind is None:
        kind = "api_error" if refused.status >= 500 else "invalid_request_error"
    return {"type": "error", "error": {"type": kind, "message": refused.message}}


def _is_worth_it(status: int) -> bool:
    return status in (408, 409, 429) or status >= 500


def _refuse_key(request: Request, api_keys: Collection[str]) -> Refused | None:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    # Where both came, the real API reads this one.
    key = request.headers.get("x-api-key") or bearer
    if not key:
        return Refused(status=401, message="x-api-key header is required")
    return REFUSALS[Meaning.BAD_KEY] if api_keys and key not in api_keys else None


def _refuse_version(request: Request) -> Refused | None:
    version = request.headers.get("anthropic-version")
    if version is None:
        return Refused(status=400, message="anthropic-version: header is required")
    if version not in VERSIONS:
        message = f'anthropic-version: "{version}" is not a valid version'
        return Refused(status=400, message=message)
    return None


def _model(name: str) -> dict[str, object]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "line": None,
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
        "capabilities": None,
    }
