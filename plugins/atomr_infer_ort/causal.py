"""Sequences in the runs of a causal model, whoever computes them.

A model in Optimum's layout takes ``past_key_values.L.key`` and ``.value`` and gives
``present.L.key`` and ``.value``: a sequence is a row of such a cache, padded on the
left.  Whether padded rows, and prompts in pieces, come out as they do alone is
tried (:func:`probe`), for no file says it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs
import numpy as np

from atomr_infer.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from typing import Self

Array = np.ndarray[Any, np.dtype[Any]]

PAST = re.compile(r"past(_key_values)?\.\d+\.(key|value)")
"""The inputs that hold the cache."""

KNOWN_INPUTS = {
    "input_ids",
    "attention_mask",
    "position_ids",
    "use_cache_branch",
    "num_logits_to_keep",
}
"""The other inputs that a causal model may have."""


@attrs.frozen(eq=False)
class Cache:
    """What some sequences have computed.

    Attributes:
        values: keys and values of all layers, as ``OrtValue``, in the order of the
            model's inputs.
        rows: how many sequences.
        width: columns, padding counted.
    """

    values: Sequence[Any]
    rows: int
    width: int


@attrs.frozen
class Part:
    """One sequence in a cache.

    Attributes:
        cache: the cache that holds it.
        row: its row there.
        pad: columns of the row that are padding.
        cut: columns at the row's end that are not the sequence's any more.
    """

    cache: Cache
    row: int = 0
    pad: int = 0
    cut: int = 0

    @property
    def length(self) -> int:
        """Tokens of the sequence that are in the cache."""
        return self.cache.width - self.pad - self.cut

    def moved(self, cache: Cache, row: int, pad: int) -> Self:
        """Return the sequence as it is in another cache, whole."""
        return attrs.evolve(self, cache=cache, row=row, pad=pad, cut=0)

    def shortened(self, length: int) -> Self:
        """Return the sequence's beginning, of so many tokens."""
        return attrs.evolve(self, cut=self.cut + self.length - length)


@attrs.frozen
class Rows:
    """What one run computes.

    Attributes:
        tokens: new tokens of each sequence, equally many.
        cache: what they computed before.
        pads: columns of the cache that are padding, for each sequence.
    """

    tokens: Sequence[Sequence[int]]
    cache: Cache
    pads: Sequence[int]


class Causal(Protocol):
    """A model that computes sequences' next tokens."""

    def empty(self) -> Cache:
        """Return the cache of one sequence that has no tokens yet."""
        ...

    def run(self, rows: Rows) -> tuple[Array, Cache]:
        """Return the logits behind each sequence's last token, and the whole cache.

        Raises:
            Exception: as the engine raises it.
        """
        ...

    def gather(self, parts: Sequence[Part]) -> Cache:
        """Return a cache with some sequences of others, padded to the longest."""
        ...


class Scores(Causal, Protocol):
    """A model that tells the logits behind each of some new tokens."""

    def score(self, rows: Rows) -> tuple[Array, Cache]:
        """Return the logits behind all new tokens, and the whole cache.

        Raises:
            Exception: as the engine raises it.
        """
        ...


PartT = TypeVar("PartT", bound=Part)


def in_one_cache(model: Causal, parts: Sequence[PartT]) -> list[PartT]:
    """Return sequences as the rows of one cache, in their order."""
    first = parts[0].cache
    stay = first.rows == len(parts) and all(
        part.cache is first and part.row == row and not part.cut
        for row, part in enumerate(parts)
    )
    if stay:
        return list(parts)
    cache = model.gather(parts)
    return [
        part.moved(cache, row, cache.width - part.length)
        for row, part in enumerate(parts)
    ]


def feeds_of(rows: Rows, inputs: Container[str], *, keep: int = 1) -> dict[str, Array]:
    """Return what a run is given beside its cache.

    Args:
        rows: what it computes.
        inputs: what it takes.
        keep: new tokens, the last ones, behind which logits are wanted.
    """
    tokens = np.array(rows.tokens, np.int64)
    new = tokens.shape[1]
    pads = np.array(rows.pads, np.int64)[:, None]
    columns = np.arange(rows.cache.width + new, dtype=np.int64)[None, :]
    feeds: dict[str, Array] = {
        "input_ids": tokens,
        "attention_mask": (columns >= pads).astype(np.int64),
        "position_ids": np.ascontiguousarray(columns[:, rows.cache.width :] - pads),
        "use_cache_branch": np.array([rows.cache.width > 0]),
        "num_logits_to_keep": np.array(keep, np.int64),
    }
    return {name: feeds[name] for name in feeds if name in inputs}


def present_of(past: str) -> str:
    """Return the output behind an input of the cache.

    >>> present_of("past_key_values.3.value")
    'present.3.value'
    """
    return "present." + past.partition(".")[2]


def cache_shape(shape: Sequence[Any], config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the heads and their size."""
    heads, size = shape[1], shape[3]
    all_heads = config.get("num_attention_heads", config.get("n_head"))
    if not isinstance(heads, int):
        heads = config.get("num_key_value_heads", all_heads)
    if not isinstance(size, int):
        size = config.get("head_dim")
        hidden = config.get("hidden_size", config.get("n_embd"))
        if size is None and isinstance(hidden, int) and isinstance(all_heads, int):
            size = hidden // all_heads
    if not isinstance(heads, int) or not isinstance(size, int):
        raise EngineStartError(
            "neither the model nor its config.json says how many heads its cache has "
            "and how large they are"
        )
    return heads, size


# --- what a model can do -------------------------------------------------------

TOLERANCE = 0.05
"""Quantized weights make a row depend a little on those beside it: measured
differences are below 0.02, and of a mask that is not heeded above 0.3."""


@attrs.frozen
class Abilities:
    """What was found by trying.

    Attributes:
        pads: sequences of different length can share a run.
        pieces: a prompt can be read in pieces.
    """

    pads: bool
    pieces: bool


def probe(model: Causal, vocabulary: int) -> Abilities:
    """Run a few tokens in several ways and compare.

    Raises:
        Exception: as the engine raises it: the model cannot be run at all.
    """
    random = np.random.default_rng(7)
    prompt = [int(token) for token in random.integers(0, vocabulary, 9)]
    last = prompt[8:]
    whole, long = model.run(Rows([prompt[:8]], model.empty(), [0]))
    _, short = model.run(Rows([prompt[3:6]], model.empty(), [0]))
    after_long, _ = model.run(Rows([last], long, [0]))
    after_short, _ = model.run(Rows([last], short, [0]))
    both = model.gather([Part(long), Part(short)])
    after_both, _ = model.run(Rows([last, last], both, [0, 5]))
    return Abilities(
        pads=_alike(after_long[0], after_both[0])
        and _alike(after_short[0], after_both[1]),
        pieces=_reads_pieces(model, prompt[:8], whole[0]),
    )


def _reads_pieces(model: Causal, prompt: list[int], whole: Array) -> bool:
    _, first = model.run(Rows([prompt[:5]], model.empty(), [0]))
    try:
        pieced, _ = model.run(Rows([prompt[5:]], first, [0]))
    # A decoder for single tokens refuses several; how, is not known beforehand.
    except Exception:  # noqa: BLE001
        return False
    return _alike(whole, pieced[0])


def _alike(one: Array, other: Array) -> bool:
    spread = one - one.mean()
    off = np.linalg.norm(spread - (other - other.mean()))
    return bool(off <= TOLERANCE * np.linalg.norm(spread))
