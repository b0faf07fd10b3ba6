"""What each Claude model takes, by the pattern of its name.

The table is read from its top; the first pattern that matches says it.  A name
that none knows is a Claude newer than this table, which is taken to be like the
newest, or a model of another maker behind the same API, which is taken to be
lenient: that one's server knows better than we do.

Pure.

Source: Anthropic's "Models overview" and migration guides, November 2026.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.asks import Effort
from atomr_infer.model.capabilities import Capabilities, Feature, ThinkingStyle
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.selectors import SELECTORS
from atomr_infer.wire.anthropic.traits import (
    PLAIN_EFFORTS,
    ModelTraits,
    ThinkingOff,
)
from atomr_infer.wire.anthropic.versions import takes_sampling

if TYPE_CHECKING:
    from atomr_infer_anthropic.config import AnthropicOptions

_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_MILLION = 1_000_000

_ALWAYS_THINKS = ModelTraits(
    max_output_tokens=128_000,
    context_tokens=_MILLION,
    off=ThinkingOff.NEVER,
    system_turns=True,
)
_FIVE = ModelTraits(
    max_output_tokens=128_000, context_tokens=_MILLION, system_turns=True
)
_SONNET_5 = ModelTraits(max_output_tokens=128_000, context_tokens=_MILLION)
_OPUS_4_8 = ModelTraits(
    max_output_tokens=128_000,
    context_tokens=_MILLION,
    off=ThinkingOff.OMITTED,
    system_turns=True,
)
_OPUS_4_7 = ModelTraits(
    max_output_tokens=128_000, context_tokens=_MILLION, off=ThinkingOff.OMITTED
)
_OPUS_4_6 = ModelTraits(
    max_output_tokens=128_000,
    context_tokens=_MILLION,
    sampling=_SAMPLING,
    off=ThinkingOff.OMITTED,
    efforts=(*PLAIN_EFFORTS, Effort.MAX),
)
_SONNET_4_6 = ModelTraits(
    max_output_tokens=64_000,
    context_tokens=_MILLION,
    sampling=_SAMPLING,
    off=ThinkingOff.OMITTED,
    efforts=PLAIN_EFFORTS,
)


def _older(
    max_output_tokens: int,
    *,
    both_of: bool = True,
    json_schema: bool = False,
    thinking: ThinkingStyle = ThinkingStyle.BUDGET,
    efforts: tuple[Effort, ...] = (),
    documents: bool = True,
) -> ModelTraits:
    return ModelTraits(
        max_output_tokens=max_output_tokens,
        context_tokens=200_000,
        sampling=_SAMPLING,
        both_of=both_of,
        prefill=True,
        thinking=thinking,
        off=ThinkingOff.OMITTED,
        efforts=efforts,
        json_schema=json_schema,
        documents=documents,
    )


_OTHER_MAKER = _older(8_192)

TABLE: tuple[tuple[str, ModelTraits], ...] = (
    ("claude-fable-*", _ALWAYS_THINKS),
    ("claude-mythos-*", _ALWAYS_THINKS),
    ("claude-opus-5-5*", _ALWAYS_THINKS),
    ("claude-opus-5*", _FIVE),
    ("claude-sonnet-5-5*", _FIVE),
    ("claude-sonnet-5*", _SONNET_5),
    ("claude-haiku-5*", _FIVE),
    ("claude-opus-4-8*", _OPUS_4_8),
    ("claude-opus-4-7*", _OPUS_4_7),
    ("claude-opus-4-6*", _OPUS_4_6),
    ("claude-sonnet-4-6*", _SONNET_4_6),
    (
        "claude-opus-4-5*",
        _older(64_000, both_of=False, json_schema=True, efforts=PLAIN_EFFORTS),
    ),
    ("claude-sonnet-4-5*", _older(64_000, both_of=False, json_schema=True)),
    ("claude-haiku-4-5*", _older(64_000, both_of=False, json_schema=True)),
    ("claude-opus-4-1*", _older(32_000, both_of=False, json_schema=True)),
    ("claude-opus-4*", _older(32_000)),
    ("claude-sonnet-4*", _older(64_000)),
    ("claude-3-7-*", _older(64_000)),
    ("claude-3-5-*", _older(8_192, thinking=ThinkingStyle.NONE)),
    ("claude-3-*", _older(4_096, thinking=ThinkingStyle.NONE, documents=False)),
    ("claude-*", _ALWAYS_THINKS),
    ("*", _OTHER_MAKER),
)
"""Patterns and traits, first match first."""

_FEATURES = frozenset(
    {
        Feature.CHAT,
        Feature.COUNT_TOKENS,
        Feature.TOOLS,
        Feature.PARALLEL_TOOLS,
        Feature.JSON_OBJECT,
        Feature.STRUCTURED_OUTPUT,
        Feature.IMAGES,
    }
)

# Of every model; several answers are several requests.
_ALWAYS_TAKEN = frozenset({"max_tokens", "stop", "n"})

MAX_ANSWERS = 16
"""Most answers to one request: each is a request of its own, with its own bill."""

MAX_CONCURRENCY = 256
"""Requests that a runner carries at once, unless the deployment says less."""


@lru_cache(maxsize=1024)
def traits_of(model: str) -> ModelTraits:
    """Return what a model takes.

    >>> traits_of("claude-opus-4-6").prefill, traits_of("claude-sonnet-4-5").prefill
    (False, True)
    >>> traits_of("claude-sonnet-4-20250514").max_output_tokens
    64000
    """
    return next(traits for pattern, traits in TABLE if fnmatchcase(model, pattern))


@lru_cache(maxsize=1024)
def fitted_traits(model: str, options: AnthropicOptions) -> ModelTraits:
    """Return what a model takes by way of a deployment."""
    traits = traits_of(model)
    if options.api_version is not None and not takes_sampling(options.api_version):
        traits = attrs.evolve(traits, sampling=frozenset())
    if options.max_output_tokens is not None:
        traits = attrs.evolve(traits, max_output_tokens=options.max_output_tokens)
    return traits


@lru_cache(maxsize=1024)
def capabilities_of(traits: ModelTraits) -> Capabilities:
    """Return what a model can do, for the check of a request before it starts."""
    features = set(_FEATURES)
    if traits.prefill:
        features.add(Feature.PREFILL)
    if traits.thinking is not ThinkingStyle.NONE:
        features.add(Feature.REASONING)
    if traits.documents:
        features.add(Feature.FILES)
    return Capabilities(
        features=frozenset(features),
        sampling=_ALWAYS_TAKEN | traits.sampling,
        max_concurrency=MAX_CONCURRENCY,
        context_tokens=traits.context_tokens,
        max_output_tokens=traits.max_output_tokens,
        thinking=traits.thinking,
        passes=frozenset({Dialect.ANTHROPIC}),
        extra_of=frozenset({Dialect.ANTHROPIC}),
        url_prefixes=("https://",),
        max_n=MAX_ANSWERS,
        selectors=SELECTORS,
    )
