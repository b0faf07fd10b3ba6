"""Requests of each dialect, and deployments on fake upstreams of each provider."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs

from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.secret import Secret
from atomr_infer.testing.upstream import (
    FakeUpstream,
    open_anthropic_upstream,
    open_gemini_upstream,
    open_openai_upstream,
)
from tests.gateway.http1 import post

Open = Callable[..., AbstractAsyncContextManager[FakeUpstream]]

PROVIDERS: Mapping[str, tuple[Open, str]] = {
    "openai": (open_openai_upstream, "gpt-test"),
    "anthropic": (open_anthropic_upstream, "claude-sonnet-4-5"),
    "gemini": (open_gemini_upstream, "gemini-2.5-flash"),
}


@attrs.frozen
class Route:
    """A route, and a request that it takes.

    Attributes:
        path: with ``{verb}`` where Gemini's clients say in it whether they stream.
        members: of the body.
        own: the provider that speaks its dialect.
    """

    path: str
    members: Mapping[str, Any]
    own: str = "openai"

    def request(self, *fields: str, stream: bool = False) -> bytes:
        """The bytes of a request on a kept connection."""
        members = dict(self.members)
        path = self.path
        if "{verb}" in path:
            verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
            path = path.format(verb=verb)
        elif stream:
            members["stream"] = True
        return post(path, json.dumps(members).encode(), *fields)


_SAID = [{"role": "user", "content": "one two three"}]
_CONTENTS = [{"role": "user", "parts": [{"text": "one two three"}]}]

ROUTES: Mapping[str, Route] = {
    "chat": Route("/v1/chat/completions", {"model": "m", "messages": _SAID}),
    "completions": Route("/v1/completions", {"model": "m", "prompt": "one two three"}),
    "responses": Route("/v1/responses", {"model": "m", "input": "one two three"}),
    "messages": Route(
        "/v1/messages",
        {"model": "m", "max_tokens": 50, "messages": _SAID},
        own="anthropic",
    ),
    "generateContent": Route(
        "/v1beta/models/m:{verb}", {"contents": _CONTENTS}, own="gemini"
    ),
}
"""Those that generate."""

EMBEDDINGS = Route("/v1/embeddings", {"model": "m", "input": "one two three"})
EMBED_CONTENT = Route(
    "/v1beta/models/m:embedContent", {"content": _CONTENTS[0]}, own="gemini"
)
COUNT_MESSAGES = Route(
    "/v1/messages/count_tokens", {"model": "m", "messages": _SAID}, own="anthropic"
)
COUNT_CONTENT = Route(
    "/v1beta/models/m:countTokens", {"contents": _CONTENTS}, own="gemini"
)


@asynccontextmanager
async def provider(
    name: str,
    *script: object,
    otherwise: object = None,
    options: Mapping[str, Any] | None = None,
    **settings: object,
) -> AsyncIterator[tuple[FakeUpstream, Deployment]]:
    """A fake upstream, and the deployment ``m`` that asks it once."""
    opens, model = PROVIDERS[name]
    async with opens(script, otherwise=otherwise) as upstream:
        members: dict[str, Any] = {"retry": RetryPolicy(max_attempts=1), **settings}
        yield (
            upstream,
            Deployment(
                name="m",
                runtime=name,
                model=model,
                credential=Secret("a-key-of-ours"),
                options={"endpoint": upstream.base_url, **(options or {})},
                **members,
            ),
        )
