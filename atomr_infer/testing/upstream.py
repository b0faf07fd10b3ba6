"""Fake upstreams on real sockets, with scripted faults, in four dialects.

They speak real HTTP/1.1, so that a client under test cannot tell one from a
provider: what the provider would refuse is refused in its words.  They remember
every request and when its client left::

    async with open_anthropic_upstream([rate_limited(), Happy()]) as upstream:
        ...  # a client of upstream.base_url
        assert upstream.requests[0].json["model"] == "claude-sonnet-4-5"

Requests take behaviours in order of arrival; past the script's end they get
``otherwise``.  Lists of models, and requests that are refused, take none.

As a process, for examples and for tests that need one::

    python -m atomr_infer.testing.upstream --dialect openai --port 0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.testing.upstreams.anthropic import AnthropicDialect
from atomr_infer.testing.upstreams.command import main
from atomr_infer.testing.upstreams.fake import FakeUpstream, RecordedRequest
from atomr_infer.testing.upstreams.gemini import GeminiDialect
from atomr_infer.testing.upstreams.litellm import LiteLLMDialect
from atomr_infer.testing.upstreams.openai import OpenAIDialect
from atomr_infer.testing.upstreams.serving import serve_upstream
from atomr_infer.testing.upstreams.unreachable import TlsPair, make_tls, refused_origin

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.testing.upstream_script import Behaviour

__all__ = [
    "FakeUpstream",
    "RecordedRequest",
    "TlsPair",
    "make_tls",
    "open_anthropic_upstream",
    "open_gemini_upstream",
    "open_litellm_upstream",
    "open_openai_upstream",
    "refused_origin",
]


def open_openai_upstream(
    script: Iterable[Behaviour] = (),
    *,
    otherwise: Behaviour | None = None,
    api_key: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AbstractAsyncContextManager[FakeUpstream]:
    """Serve an upstream with OpenAI's dialect; the block's end closes it.

    Args:
        script: behaviours of the first requests.
        otherwise: behaviour of all further ones; None: ``Happy()``.
        api_key: asked for; None: nobody is refused.
        host: address to listen on.
        port: TCP port; 0: any free one.
        tls: serves HTTPS with it, as :func:`make_tls` makes it; None: HTTP.
    """
    upstream = FakeUpstream(
        script, dialect=OpenAIDialect(), otherwise=otherwise, api_key=api_key
    )
    return serve_upstream(upstream, host=host, port=port, tls=tls)


def open_anthropic_upstream(
    script: Iterable[Behaviour] = (),
    *,
    otherwise: Behaviour | None = None,
    api_key: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AbstractAsyncContextManager[FakeUpstream]:
    """Serve an upstream with Anthropic's dialect; see :func:`open_openai_upstream`."""
    upstream = FakeUpstream(
        script, dialect=AnthropicDialect(), otherwise=otherwise, api_key=api_key
    )
    return serve_upstream(upstream, host=host, port=port, tls=tls)


def open_gemini_upstream(
    script: Iterable[Behaviour] = (),
    *,
    otherwise: Behaviour | None = None,
    api_key: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AbstractAsyncContextManager[FakeUpstream]:
    """Serve an upstream with Gemini's dialect; see :func:`open_openai_upstream`.

    The key is AI Studio's, and on Vertex's paths the access token.
    """
    upstream = FakeUpstream(
        script, dialect=GeminiDialect(), otherwise=otherwise, api_key=api_key
    )
    return serve_upstream(upstream, host=host, port=port, tls=tls)


def open_litellm_upstream(
    script: Iterable[Behaviour] = (),
    *,
    otherwise: Behaviour | None = None,
    api_key: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AbstractAsyncContextManager[FakeUpstream]:
    """Serve an upstream with LiteLLM's dialect; see :func:`open_openai_upstream`."""
    upstream = FakeUpstream(
        script, dialect=LiteLLMDialect(), otherwise=otherwise, api_key=api_key
    )
    return serve_upstream(upstream, host=host, port=port, tls=tls)


if __name__ == "__main__":
    main()
