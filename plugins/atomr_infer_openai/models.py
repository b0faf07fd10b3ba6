"""What the models behind an OpenAI-like server can do, as far as we know it.

OpenAI's own models are known by name, behind whichever host: OpenAI's reasoning
models refuse ``max_tokens``, ``top_k`` and what steers a sampler, and a proxy may
pass that on.  A compatible server (vLLM, Ollama, ...) says itself what its model
lacks, so nothing is refused on its behalf.

Pure.

Source: OpenAI's model pages and deprecations, November 2026.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from atomr_infer.model.capabilities import (
    ALL_SAMPLING,
    Capabilities,
    Feature,
    ThinkingStyle,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.selectors import SELECTORS
from atomr_infer.wire.openai.fitting import ChatTraits
from atomr_infer_openai.config import BARE_TEXT

if TYPE_CHECKING:
    from atomr_infer.wire.openai.upstream_request import MaxTokensMember
    from atomr_infer_openai.config import OpenAIOptions

# Continuing an assistant's text and counting tokens have no route there.
_NEVER = {Feature.PREFILL, Feature.COUNT_TOKENS}
_CHAT = (
    frozenset(Feature)
    - _NEVER
    - {
        Feature.COMPLETIONS,
        Feature.EMBEDDINGS,
        Feature.REASONING,
        Feature.IMAGE_URLS,
        Feature.FILE_URLS,
    }
)
_COMPATIBLE = frozenset(Feature) - _NEVER - {Feature.FILE_URLS}

_EMBEDDING = "text-embedding-"

# They reason, whether asked to or not, and refuse what would steer a sampler.
_REASONING = ("o1", "o3", "o4", "gpt-5", "gpt-6")
_NOT_REASONING = ("gpt-5-chat", "gpt-5.1-chat", "gpt-5.2-chat", "gpt-5.3-chat")
_STEERING = {"temperature", "top_p", "presence_penalty", "frequency_penalty"}

# Most that OpenAI's models write, first match first; of newer ones nobody knows.
_MAX_OUTPUT = (
    ("gpt-5-chat", 16_384),
    ("gpt-5.1-chat", 16_384),
    ("gpt-5.2-chat", 16_384),
    ("gpt-5.3-chat", 16_384),
    ("gpt-5", 128_000),
    ("gpt-4.1", 32_768),
    ("gpt-4o", 16_384),
    ("chatgpt-4o", 16_384),
    ("gpt-4-turbo", 4_096),
    ("gpt-3.5-turbo", 4_096),
    ("o1-mini", 65_536),
    ("o1-preview", 32_768),
    ("o1", 100_000),
    ("o3", 100_000),
    ("o4-mini", 100_000),
)

# What follows keeps ``o1`` from being the beginning of somebody's own name.
_REASONING_NAME = re.compile(r"(?:o[134]|gpt-[56])(?![A-Za-z0-9_])")

_MAX_CONCURRENCY = 256


def capabilities_of(model: str, options: OpenAIOptions) -> Capabilities:
    """Return what a model can do behind an endpoint."""
    own = is_openais(model, options)
    return _capabilities(model, options.is_openai, own, options.passes(model))


@lru_cache(maxsize=1024)
def _capabilities(
    model: str,
    is_openai: bool,  # noqa: FBT001 - a cache's key
    own: bool,  # noqa: FBT001 - likewise
    passes: frozenset[Dialect],
) -> Capabilities:
    features = _features(model) if is_openai else _COMPATIBLE
    sampling = ALL_SAMPLING
    if own:
        sampling = ALL_SAMPLING - {"top_k"}
        if _reasons(_bare(model)):
            sampling -= _STEERING
    return Capabilities(
        features=features,
        sampling=sampling,
        max_concurrency=_MAX_CONCURRENCY,
        max_output_tokens=_max_output_tokens(_bare(model)) if own else None,
        thinking=ThinkingStyle.EFFORT,
        passes=passes,
        extra_of=frozenset({Dialect.OPENAI_CHAT, Dialect.OPENAI_COMPLETIONS}),
        url_prefixes=("https://", "http://") if is_openai else (),
        selectors=SELECTORS,
    )


def is_openais(model: str, options: OpenAIOptions) -> bool:
    """Whether a model is one of OpenAI's, whoever passes requests on to it."""
    if options.is_openai:
        return True
    if options.openai_models is not None:
        return options.openai_models
    return _REASONING_NAME.match(_bare(model)) is not None


def max_tokens_member(model: str, options: OpenAIOptions) -> MaxTokensMember:
    """Return how a model's server spells the limit of output tokens.

    All models of OpenAI's take the newer name, and those that reason refuse the
    older one; compatible servers may know the older one only.
    """
    return "max_completion_tokens" if is_openais(model, options) else "max_tokens"


def _bare(model: str) -> str:
    """Return a name without the house that proxies put before it."""
    return model.rpartition("/")[2]


def _features(model: str) -> frozenset[Feature]:
    if model.startswith(_EMBEDDING):
        return frozenset({Feature.EMBEDDINGS})
    if model.startswith(BARE_TEXT):
        return frozenset({Feature.COMPLETIONS, Feature.LOGPROBS})
    return _CHAT | {Feature.REASONING} if _reasons(model) else _CHAT


def _max_output_tokens(model: str) -> int | None:
    found = (most for name, most in _MAX_OUTPUT if model.startswith(name))
    return next(found, None)


def _reasons(model: str) -> bool:
    return model.startswith(_REASONING) and not model.startswith(_NOT_REASONING)


def traits_of(model: str, options: OpenAIOptions) -> ChatTraits:
    """Return what requests for a model may hold."""
    capabilities = capabilities_of(model, options)
    return ChatTraits(
        sampling=capabilities.sampling,
        effort=Feature.REASONING in capabilities.features,
        extensions=not options.is_openai,
        max_output_tokens=capabilities.max_output_tokens,
    )


def takes_bare_text(model: str, options: OpenAIOptions) -> bool:
    """Whether a prompt can be continued as it is."""
    return Feature.COMPLETIONS in capabilities_of(model, options).features
