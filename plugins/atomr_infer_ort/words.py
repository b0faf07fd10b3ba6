"""What a model's directory says of its words: tokenizer, template, context.

Whoever computes the model reads its texts in this way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.runtimes.decoding.chat import ChatTemplate
from atomr_infer.runtimes.decoding.sampling import defaults_of
from atomr_infer.runtimes.decoding.words import Words
from atomr_infer_ort.tokens import ModelTokenizer

if TYPE_CHECKING:
    from atomr_infer_ort.layout import Layout

_UNKNOWN_CONTEXT_TOKENS = 4096
"""Bounds prompt and answer of a model that does not say how long its context is."""

_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length")


def tokenizer_of(layout: Layout) -> ModelTokenizer:
    """Return the model's tokenizer.

    Raises:
        EngineStartError: it cannot be read.
    """
    known = layout.config.get("vocab_size")
    vocabulary = known if isinstance(known, int) else None
    return ModelTokenizer(layout.tokenizer, vocabulary=vocabulary)


def words_of(layout: Layout, tokenizer: ModelTokenizer, *, drafts: int = 0) -> Words:
    """Return how a causal model's requests become tokens.

    Args:
        layout: the model's directory.
        tokenizer: its tokenizer.
        drafts: tokens that a draft model may propose at once; 0: there is none.
    """
    template = None
    if layout.chat_template is not None:
        template = ChatTemplate(layout.chat_template, layout.tokenizer_config)
    ends = tokenizer.end_tokens(
        {**layout.config, **layout.generation}, layout.tokenizer_config
    )
    defaults = defaults_of(layout.generation)
    return Words(tokenizer, template, ends, defaults, drafts=drafts)


def context_tokens(layout: Layout, asked: int | None) -> int:
    """Return the tokens that one request may have; ``asked``: at most so many."""
    said = [
        layout.config[key]
        for key in _CONTEXT_KEYS
        if isinstance(layout.config.get(key), int)
    ]
    own = said[0] if said else _UNKNOWN_CONTEXT_TOKENS
    return min(own, asked or own)
