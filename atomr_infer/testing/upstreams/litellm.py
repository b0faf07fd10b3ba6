"""LiteLLM's dialect: OpenAI's, with what LiteLLM's proxy says in headers.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from atomr_infer.testing.upstream_script import Meaning, Refused
from atomr_infer.testing.upstreams.openai import OpenAIDialect

if TYPE_CHECKING:
    from atomr_infer.testing.upstreams.answer import Answer
    from atomr_infer.testing.upstreams.call import Call, Members, Request
    from atomr_infer.testing.upstreams.dialect import Frame, Reply
    from atomr_infer.testing.upstreams.steps import Headers

REFUSALS: Mapping[Meaning, Refused] = {
    Meaning.BAD_KEY: Refused(
        status=401,
        message="Authentication Error, Invalid proxy server token passed.",
        type="token_not_found_in_db",
        param="key",
        code="401",
    ),
    Meaning.CONTENT_POLICY: Refused(
        status=400,
        message="litellm.ContentPolicyViolationError: the prompt was blocked",
        code="400",
    ),
    Meaning.CONTEXT_TOO_LONG: Refused(
        status=400,
        message="litellm.ContextWindowExceededError: This model's maximum context"
        " length is 8192 tokens.",
        code="400",
    ),
    Meaning.OUT_OF_QUOTA: Refused(
        status=400,
        message="Budget has been exceeded! Current cost: 2.0, Max budget: 1.0",
        type="budget_exceeded",
        code="400",
    ),
    Meaning.OVERLOADED: Refused(
        status=503, message="litellm.ServiceUnavailableError: overloaded", code="503"
    ),
    Meaning.UNKNOWN_MODEL: Refused(
        status=400,
        message="/chat/completions: Invalid model name passed in model=unknown. Call"
        " `/v1/models` to view available models for your key.",
        param="None",
        code="400",
    ),
}


@attrs.frozen(kw_only=True)
class LiteLLMDialect:
    """What LiteLLM's proxy speaks.

    Attributes:
        models: what the list of models holds.
        cost_usd: what each answer is said to cost.
    """

    models: Sequence[str] = ("fake-model",)
    cost_usd: float = 0.000123

    @property
    def name(self) -> str:
        """``litellm``."""
        return "litellm"

    @property
    def refusals(self) -> Mapping[Meaning, Refused]:
        """What LiteLLM answers in each case."""
        return REFUSALS

    @property
    def _openai(self) -> OpenAIDialect:
        return OpenAIDialect(models=self.models, strict=False)

    def base_url(self, origin: str) -> str:
        """Return the address with its version, as OpenAI's library wants it."""
        return self._openai.base_url(origin)

    def read(
        self, request: Request, api_keys: Collection[str]
    ) -> Call | Refused | Reply:
        """Return what a request asks, or how LiteLLM refuses it."""
        asked = self._openai.read(request, api_keys)
        is_key = isinstance(asked, Refused) and asked.code == "invalid_api_key"
        return REFUSALS[Meaning.BAD_KEY] if is_key else asked

    def whole(self, call: Call, answer: Answer) -> object:
        """Return the JSON value of an answer that is not streamed."""
        return self._openai.whole(call, answer)

    def frames(self, call: Call, answer: Answer, *, done: bool) -> Iterator[Frame]:
        """Yield a streamed answer; ``done`` False leaves out ``[DONE]``."""
        return self._openai.frames(call, answer, done=done)

    def blocked(self, call: Call) -> Answer | Refused:
        """Return the 400 of a prompt that a filter stops."""
        return REFUSALS[Meaning.CONTENT_POLICY]

    def error(self, refused: Refused) -> tuple[object, Headers]:
        """Return the JSON value and the headers of an HTTP error."""
        members, headers = self._openai.error(refused)
        return members, (*_PROXY, *headers)

    def stream_error(self, call: Call, refused: Refused, *, first: bool) -> bytes:
        """Return the event of an error inside a stream."""
        return self._openai.stream_error(call, refused, first=first)

    def malformed(self, call: Call) -> bytes:
        """Return an event whose data is the front part of a chunk."""
        return self._openai.malformed(call)

    def keepalive(self, call: Call) -> bytes:
        """Return a comment."""
        return self._openai.keepalive(call)

    def headers(self, call: Call) -> Headers:
        """Return headers of each answer that is not an error.

        The cost is said before a streamed answer is known, as LiteLLM does.
        """
        cost = "0" if call.stream else repr(self.cost_usd)
        tags = ",".join(tags_of(call.members))
        return (
            *_PROXY,
            ("x-litellm-model-id", f"id-of-{call.model}"),
            ("x-litellm-response-cost", cost),
            *((("x-litellm-tags", tags),) if tags else ()),
        )

    def media_type(self, call: Call) -> str:
        """Return the content type of a streamed answer."""
        return self._openai.media_type(call)


_PROXY: Headers = (
    ("x-litellm-call-id", "call-fake"),
    ("x-litellm-version", "1.109.1"),
    ("x-litellm-key-spend", "0.0"),
    ("x-litellm-attempted-retries", "0"),
    ("x-litellm-attempted-fallbacks", "0"),
)


def tags_of(members: Members) -> tuple[str, ...]:
    """Return the tags of a request: in ``metadata``, or beside it.

    >>> tags_of({"metadata": {"tags": ["a"]}})
    ('a',)
    """
    metadata = members.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return tuple(map(str, tags or members.get("tags") or ()))
