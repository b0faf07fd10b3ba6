"""What each Gemini model takes, by the pattern of its name.

The table is read from its top; the first pattern that matches says it.  A model
that is newer than this table is taken to be like the newest family in it.

Pure.

Source: Gemini API, "Models" and "Thinking"; Vertex AI, "Thinking"; November 2026.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache

import attrs

from atomr_infer.model.asks import Effort
from atomr_infer.model.capabilities import (
    ALL_SAMPLING,
    Capabilities,
    Feature,
    ThinkingStyle,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.selectors import SELECTORS
from atomr_infer.wire.gemini.thinking import NO_THINKING, Thinking
from atomr_infer.wire.gemini.upstream import Rules
from atomr_infer.wire.gemini.upstream_media import FETCHED_PREFIXES

MAX_CONCURRENCY = 256
"""Requests that a runner carries at once, unless the deployment says less."""

_MILLION = 1_048_576

_CHAT = frozenset(
    {
        Feature.CHAT,
        Feature.COUNT_TOKENS,
        Feature.TOOLS,
        Feature.PARALLEL_TOOLS,
        Feature.JSON_OBJECT,
        Feature.STRUCTURED_OUTPUT,
        Feature.LOGPROBS,
        Feature.IMAGES,
        Feature.AUDIO,
        Feature.FILES,
        Feature.REASONING,
    }
)
_DRAWING = frozenset(
    {Feature.CHAT, Feature.COUNT_TOKENS, Feature.IMAGES, Feature.FILES}
)
_SPEAKING = frozenset({Feature.CHAT, Feature.COUNT_TOKENS})
_OPEN = frozenset({Feature.CHAT, Feature.COUNT_TOKENS, Feature.IMAGES})
_EMBEDDING = frozenset({Feature.EMBEDDINGS})


@attrs.frozen(kw_only=True)
class GeminiModel:
    """What one model is.

    Attributes:
        features: what it has.
        thinking: how it is told to think.
        signed_calls: True when it refuses a call of its own without signature.
        json_beside_tools: True when it takes a response format beside tools.
        media_in_results: True when what a tool shows stands inside its result.
        context_tokens: most tokens of a prompt; None: not known.
        max_output_tokens: most that it writes; None: not known.
    """

    features: frozenset[Feature] = _CHAT
    thinking: Thinking = NO_THINKING
    signed_calls: bool = False
    json_beside_tools: bool = False
    media_in_results: bool = False
    context_tokens: int | None = _MILLION
    max_output_tokens: int | None = 65_536

    @property
    def rules(self) -> Rules:
        """What its requests must look like."""
        return Rules(
            thinking=self.thinking,
            signed_calls=self.signed_calls,
            json_beside_tools=self.json_beside_tools,
            media_in_results=self.media_in_results,
            max_output_tokens=self.max_output_tokens,
        )


def _level(*levels: Effort) -> GeminiModel:
    thinking = Thinking(style=ThinkingStyle.EFFORT, levels=levels, can_be_off=False)
    return GeminiModel(
        thinking=thinking,
        signed_calls=True,
        json_beside_tools=True,
        media_in_results=True,
    )


def _budget(least: int, most: int, *, can_be_off: bool = True) -> GeminiModel:
    thinking = Thinking(
        style=ThinkingStyle.BUDGET,
        min_budget=least,
        max_budget=most,
        can_be_off=can_be_off,
    )
    return GeminiModel(thinking=thinking)


def _without_thinking(max_output_tokens: int) -> GeminiModel:
    return GeminiModel(
        features=_CHAT - {Feature.REASONING}, max_output_tokens=max_output_tokens
    )


_FOUR_LEVELS = _level(Effort.MINIMAL, Effort.LOW, Effort.MEDIUM, Effort.HIGH)
_THREE_LEVELS = _level(Effort.LOW, Effort.MEDIUM, Effort.HIGH)
_EMBEDS = GeminiModel(features=_EMBEDDING, context_tokens=None, max_output_tokens=None)

TABLE: tuple[tuple[str, GeminiModel], ...] = (
    ("*embedding*", _EMBEDS),
    ("*-tts*", GeminiModel(features=_SPEAKING, context_tokens=32_768)),
    # What draws signs its parts too, but refuses tools and levels.
    ("gemini-*-image*", GeminiModel(features=_DRAWING, context_tokens=65_536)),
    ("gemini-3-pro*", _level(Effort.LOW, Effort.HIGH)),
    ("gemini-3-flash*", _FOUR_LEVELS),
    ("gemini-3.1-flash*", _FOUR_LEVELS),
    ("gemini-3.5-flash*", _FOUR_LEVELS),
    ("gemini-2.5-pro*", _budget(128, 32_768, can_be_off=False)),
    ("gemini-2.5-flash-lite*", _budget(512, 24_576)),
    ("gemini-2.5-*", _budget(1, 24_576)),
    ("gemini-2.0-*", _without_thinking(8_192)),
    ("gemini-1.*", _without_thinking(8_192)),
    ("gemma-*", GeminiModel(features=_OPEN, context_tokens=None)),
    ("*", _THREE_LEVELS),
)
"""Patterns and models, first match first."""


@lru_cache(maxsize=1024)
def model_of(name: str) -> GeminiModel:
    """Return what a model is.

    Args:
        name: with or without its collection (``models/...``).

    >>> model_of("models/gemini-2.5-flash").thinking.style.name
    'BUDGET'
    >>> model_of("gemini-embedding-001").features == _EMBEDDING
    True
    """
    name = name.rpartition("/")[2]
    return next(model for pattern, model in TABLE if fnmatchcase(name, pattern))


@lru_cache(maxsize=1024)
def capabilities_of(name: str) -> Capabilities:
    """Return what a model can do, for the check of a request before it starts."""
    model = model_of(name)
    return Capabilities(
        features=model.features,
        sampling=ALL_SAMPLING,
        max_concurrency=MAX_CONCURRENCY,
        context_tokens=model.context_tokens,
        max_output_tokens=model.max_output_tokens,
        thinking=model.thinking.style,
        passes=frozenset({Dialect.GEMINI}),
        extra_of=frozenset({Dialect.GEMINI}),
        url_prefixes=FETCHED_PREFIXES,
        selectors=SELECTORS,
    )


ANY_MODEL = Capabilities(
    features=_CHAT | _EMBEDDING,
    sampling=ALL_SAMPLING,
    max_concurrency=MAX_CONCURRENCY,
    passes=frozenset({Dialect.GEMINI}),
    extra_of=frozenset({Dialect.GEMINI}),
    url_prefixes=FETCHED_PREFIXES,
    selectors=SELECTORS,
)
"""What some model behind the API can do; each one's own is narrower."""
