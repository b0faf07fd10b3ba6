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
:func:`~atomr_infer_ort.causal.probe` when it is loaded, and its sequences share a
run only while they are of one length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnxruntime import OrtValue

from atomr_infer.errors import EngineStartError
from atomr_infer_ort.causal import (
    KNOWN_INPUTS,
    PAST,
    Cache,
    Part,
    Rows,
    cache_shape,
    feeds_of,
    present_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr_infer_ort.session import Session

Array = np.ndarray[Any, np.dtype[Any]]

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class CausalModel:
    """A session with what is known of its inputs.

    Args:
        session: the model.
        config: ``config.json``, for sizes that the model leaves open.
        gpu: which GPU the cache stays on, as CUDA counts; None: it stays in the
            machine's memory.

    Raises:
        EngineStartError: the model is not in the layout.
    """

    def __init__(
        self, session: Session, config: Mapping[str, Any], *, gpu: int | None = None
    ) -> None:
        self._session = session
        self._place = ("cpu", 0) if gpu is None else ("cuda", gpu)
        self._inputs = {one.name: one for one in session.get_inputs()}
        self._outputs = [one.name for one in session.get_outputs()]
        self.cache_names = [name for name in self._inputs if PAST.fullmatch(name)]
        self._check()
        first = self._inputs[self.cache_names[0]]
        self._dtype = _DTYPES.get(first.type)
        if self._dtype is None:
            raise EngineStartError(f"the model's cache has the type {first.type}")
        self._heads, self._size = cache_shape(first.shape, config)
        self._present = [present_of(name) for name in self.cache_names]

    def _check(self) -> None:
        unknown = set(self._inputs) - set(self.cache_names) - KNOWN_INPUTS
        if unknown:
            raise EngineStartError(
                f"the model has inputs that a causal model has not: "
                f"{', '.join(sorted(unknown))}; export it as one decoder that reads "
                "tokens"
            )
        needed = {"logits", *map(present_of, self.cache_names)}
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
        logits, cache = self._run(rows, keep=1)
        return logits[:, -1], cache

    def score(self, rows: Rows) -> tuple[Array, Cache]:
        """Compute new tokens, and the logits behind each of them.

        Raises:
            Exception: as ONNX Runtime raises it.
        """
        return self._run(rows, keep=len(rows.tokens[0]))

    def _run(self, rows: Rows, *, keep: int) -> tuple[Array, Cache]:
        binding = self._session.io_binding()
        # Held until the run is over: it copies nothing.
        feeds = feeds_of(rows, self._inputs, keep=keep)
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        for name, held in zip(self.cache_names, rows.cache.values, strict=True):
            binding.bind_ortvalue_input(name, held)
        binding.bind_output("logits", "cpu")
        for name in self._present:
            binding.bind_output(name, *self._place)
        self._session.run_with_iobinding(binding)
        logits, *present = binding.get_outputs()
        last = logits.numpy()[:, -keep:]
        width = rows.cache.width + len(rows.tokens[0])
        cache = Cache(present, rows.cache.rows, width)
        return last.astype(np.float32, copy=False), cache

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
                upto = part.pad + part.length
                own = sources[key][part.row, :, part.pad : upto]
                target[row, :, width - part.length :] = own
            gathered.append(self._value(target))
        return Cache(gathered, len(parts), width)

    def _value(self, array: Array) -> Any:  # noqa: ANN401  the library has no types
        return OrtValue.ortvalue_from_numpy(array, *self._place)
