"""A causal language model with a key-value cache, in Optimum's layout.

One run takes some sequences' new tokens and what they computed before::

    input_ids                      [sequences, new]
    attention_mask                 [sequences, past + new]
    position_ids                   [sequences, new]            not in all models
    past_key_values.L.key, .value  [sequences, heads, past, size]

and gives ``logits`` and the whole cache anew, as ``present.L.key`` and
``.value``.  The cache stays where the provider computes (IO binding): what a
step gives is the next step's input, without a copy.

Sequences of different length share a run when the shorter ones are padded on
the left: their first columns are masked, and their positions are counted without
them.  A model in which that does not give what each sequence gets alone (one
without ``position_ids``, or with attention that knows no mask) is found out by
:func:`probe` when it is loaded, and its sequences share a run only while they
are of one length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from onnxruntime import OrtValue

from atomr_infer.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer_ort.session import Session

Array = np.ndarray[Any, np.dtype[Any]]

_PAST = re.compile(r"past(_key_values)?\.\d+\.(key|value)")
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}
_KNOWN = {
    "input_ids",
    "attention_mask",
    "position_ids",
    "use_cache_branch",
    "num_logits_to_keep",
}


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
    """

    cache: Cache
    row: int = 0
    pad: int = 0

    @property
    def length(self) -> int:
        """Tokens of the sequence that are in the cache."""
        return self.cache.width - self.pad


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


class CausalModel:
    """A session with what is known of its inputs.

    Args:
        session: the model.
        config: ``config.json``, for sizes that the model leaves open.
        device: where the cache stays: ``"cpu"`` or ``"cuda"``.

    Raises:
        EngineStartError: the model is not in the layout.
    """

    def __init__(
        self, session: Session, config: Mapping[str, Any], *, device: str = "cpu"
    ) -> None:
        self._session = session
        self._device = device
        self._inputs = {one.name: one for one in session.get_inputs()}
        self._outputs = [one.name for one in session.get_outputs()]
        self.cache_names = [name for name in self._inputs if _PAST.fullmatch(name)]
        self._check()
        first = self._inputs[self.cache_names[0]]
        self._dtype = _DTYPES.get(first.type)
        if self._dtype is None:
            raise EngineStartError(f"the model's cache has the type {first.type}")
        self._heads, self._size = _cache_shape(first.shape, config)
        self._present = [_present(name) for name in self.cache_names]

    def _check(self) -> None:
        unknown = set(self._inputs) - set(self.cache_names) - _KNOWN
        if unknown:
            raise EngineStartError(
                f"the model has inputs that a causal model has not: "
                f"{', '.join(sorted(unknown))}"
            )
        needed = {"logits", *map(_present, self.cache_names)}
        missing = sorted(needed - set(self._outputs))
        if missing:
            raise EngineStartError(f"the model has no output {missing[0]!r}")

    @property
    def bytes_per_token(self) -> int:
        """What one token of one sequence takes in the cache."""
        item = np.dtype(self._dtype).itemsize
        return len(self.cache_names) * self._heads * self._size * item

    def empty(self) -> Cache:
        """Return the cache of one sequence that has no tokens yet."""
        nothing = np.zeros((1, self._heads, 0, self._size), self._dtype)
        return Cache([self._value(nothing) for _ in self.cache_names], 1, 0)

    def run(self, rows: Rows) -> tuple[Array, Cache]:
        """Compute new tokens.

        Returns:
            The logits behind each sequence's last token, and the whole cache.

        Raises:
            Exception: as ONNX Runtime raises it.
        """
        binding = self._session.io_binding()
        feeds = self._feeds(rows)  # held until the run is over: it copies nothing
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        for name, held in zip(self.cache_names, rows.cache.values, strict=True):
            binding.bind_ortvalue_input(name, held)
        binding.bind_output("logits", "cpu")
        for name in self._present:
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        logits, *present = binding.get_outputs()
        last = logits.numpy()[:, -1]
        width = rows.cache.width + len(rows.tokens[0])
        cache = Cache(present, rows.cache.rows, width)
        return last.astype(np.float32, copy=False), cache

    def _feeds(self, rows: Rows) -> dict[str, Array]:
        tokens = np.array(rows.tokens, np.int64)
        new = tokens.shape[1]
        pads = np.array(rows.pads, np.int64)[:, None]
        columns = np.arange(rows.cache.width + new, dtype=np.int64)[None, :]
        feeds: dict[str, Array] = {
            "input_ids": tokens,
            "attention_mask": (columns >= pads).astype(np.int64),
            "position_ids": np.ascontiguousarray(columns[:, rows.cache.width :] - pads),
            "use_cache_branch": np.array([rows.cache.width > 0]),
            "num_logits_to_keep": np.array(1, np.int64),
        }
        return {name: feeds[name] for name in feeds if name in self._inputs}

    # --- caches ---------------------------------------------------------------

    def gather(self, parts: Sequence[Part]) -> Cache:
        """Return a cache with some sequences of others, padded to the longest."""
        width = max(part.length for part in parts)
        shape = (len(parts), self._heads, width, self._size)
        gathered = []
        for layer in range(len(self.cache_names)):
            target = np.zeros(shape, self._dtype)
            sources: dict[int, Array] = {}
            for row, part in enumerate(parts):
                key = id(part.cache)
                if key not in sources:
                    sources[key] = part.cache.values[layer].numpy()
                own = sources[key][part.row, :, part.pad :]
                target[row, :, width - part.length :] = own
            gathered.append(self._value(target))
        return Cache(gathered, len(parts), width)

    def _value(self, array: Array) -> Any:  # noqa: ANN401  the library has no types
        return OrtValue.ortvalue_from_numpy(array, self._device, 0)


def _present(past: str) -> str:
    """Return the output behind an input of the cache.

    >>> _present("past_key_values.3.value")
    'present.3.value'
    """
    return "present." + past.partition(".")[2]


def _cache_shape(shape: Sequence[Any], config: Mapping[str, Any]) -> tuple[int, int]:
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


def probe(model: CausalModel, vocabulary: int) -> Abilities:
    """Run a few tokens in several ways and compare.

    Raises:
        Exception: as ONNX Runtime raises it: the model cannot be run at all.
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


def _reads_pieces(model: CausalModel, prompt: list[int], whole: Array) -> bool:
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
