"""A causal language model as a plan: its caches stay on the device.

What one step gives as ``present`` is bound as ``past`` of the next, without a copy.
When sequences join or leave, their rows are copied on the device into a new cache,
padded on the left.  The rows, the steps and the sampling are those of
:mod:`atomr_infer_ort`.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from atomr_infer.errors import (
    OUT_OF_MEMORY,
    EngineCrashedError,
    EngineError,
    EngineStartError,
    InferenceError,
)
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
from atomr_infer_tensorrt.arena import UNUSED_SHARE, Arena, Held
from atomr_infer_tensorrt.plan import Block
from atomr_infer_tensorrt.running import Buffer, Lane, Pinned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from atomr_infer_tensorrt.plan import Array, Device, Plan
    from atomr_infer_tensorrt.shapes import Shape

_Made = TypeVar("_Made")


class PlanCausal:
    """See :class:`~atomr_infer_ort.causal.Causal`.

    Args:
        plan: the model.
        device: where it is.
        config: ``config.json``, for sizes that the plan leaves open.

    Raises:
        EngineStartError: it is not in the layout.
        InferenceError: the device has no memory for it.
    """

    def __init__(self, plan: Plan, device: Device, config: Mapping[str, Any]) -> None:
        self._device = device
        self._bindings = {one.name: one for one in plan.bindings}
        inputs = [one.name for one in plan.bindings if one.is_input]
        self.cache_names = [name for name in inputs if PAST.fullmatch(name)]
        self._feeds = {name for name in inputs if name not in self.cache_names}
        self._present = [present_of(name) for name in self.cache_names]
        self._check()
        first = self._bindings[self.cache_names[0]]
        self._dtype = first.dtype
        self._heads, self._size = cache_shape(first.shape, config)
        device.use()
        self._lane = Lane(plan, device)
        self._arena = Arena(device, self._lane.stream)
        self._last = Buffer(device)
        self._logits = Pinned(device)

    def _check(self) -> None:
        unknown = self._feeds - KNOWN_INPUTS
        if unknown:
            raise EngineStartError(
                f"the plan has inputs that a causal model has not: "
                f"{', '.join(sorted(unknown))}"
            )
        missing = {"logits", *self._present} - set(self._bindings)
        if missing:
            raise EngineStartError(f"the plan has no output {min(missing)!r}")

    @property
    def bytes_per_token(self) -> int:
        """What one token of one sequence takes in the cache."""
        per_layer = self._heads * self._size * self._dtype.itemsize
        return len(self.cache_names) * per_layer

    def keep_within(self, cache_tokens: int) -> None:
        """Say how many tokens the caches hold, at most.

        A run holds them twice, before and behind it; memory beyond that is given
        back when it is not in use.
        """
        twice = 2 * cache_tokens * self.bytes_per_token
        self._arena.budget_bytes = twice + twice // UNUSED_SHARE

    def empty(self) -> Cache:
        """Return the cache of one sequence that has no tokens yet."""
        return Cache([self._arena.take(0) for _ in self.cache_names], 1, 0)

    def run(self, rows: Rows) -> tuple[Array, Cache]:
        """Return the logits behind each sequence's last token, and the whole cache.

        Raises:
            InferenceError: as :meth:`~atomr_infer_tensorrt.running.PlanRuns.run`.
        """
        return self._with_room(lambda: self._settled_run(rows))

    def _with_room(self, do: Callable[[], _Made]) -> _Made:
        """Do what takes memory; where there is none, once more with what is unused."""
        self._device.use()
        try:
            return do()
        except EngineError as error:
            if error.code != OUT_OF_MEMORY:
                raise
        # Behind the handler: the error refers to what was taken before it.
        self._arena.trim()
        return do()

    def _settled_run(self, rows: Rows) -> tuple[Array, Cache]:
        try:
            with self._lane.settled():
                return self._run(rows)
        except InferenceError:
            raise
        # The library's bindings raise what they like where they are misused.
        except Exception as error:
            raise EngineCrashedError(f"TensorRT failed: {error}") from error

    def _run(self, rows: Rows) -> tuple[Array, Cache]:
        cache, lane = rows.cache, self._lane
        feeds = feeds_of(rows, self._feeds)
        shapes = {name: tuple(value.shape) for name, value in feeds.items()}
        past = self._shape(cache.rows, cache.width)
        lane.choose(shapes | dict.fromkeys(self.cache_names, past))
        for name, value in feeds.items():
            lane.give(self._bindings[name], value)
        for name, held in zip(self.cache_names, cache.values, strict=True):
            lane.context.bind(name, held.address)
        width = cache.width + len(rows.tokens[0])
        present = [self._take(cache.rows, width) for _ in self._present]
        for name, held in zip(self._present, present, strict=True):
            lane.context.bind(name, held.address)
        logits_shape = lane.make_room(self._bindings["logits"])
        lane.context.enqueue(lane.stream)
        logits = self._fetch_last(logits_shape)
        lane.stream.wait()
        return (
            logits.astype(np.float32, copy=True),
            Cache(present, cache.rows, width),
        )

    def _fetch_last(self, shape: Shape) -> Array:
        """Begin to copy the logits behind each row's last token.

        All of a long prompt's are as large as the model's weights, and only these are
        wanted.
        """
        rows, new, vocabulary = shape
        binding, lane = self._bindings["logits"], self._lane
        width_bytes = vocabulary * binding.dtype.itemsize
        target = self._last.hold(rows * width_bytes)
        source = lane.address(binding) + (new - 1) * width_bytes
        lane.stream.copy(
            Block(
                source=source,
                source_pitch_bytes=new * width_bytes,
                target=target,
                target_pitch_bytes=width_bytes,
                width_bytes=width_bytes,
                height=rows,
            )
        )
        staged = self._logits.hold(rows * width_bytes)
        lane.stream.download(staged, target)
        return staged.view(binding.dtype).reshape(rows, vocabulary)

    # --- caches ---------------------------------------------------------------

    def gather(self, parts: Sequence[Part]) -> Cache:
        """Return a cache with some sequences of others, padded to the longest.

        Raises:
            EngineError: the device has no memory for it.
            EngineCrashedError: it failed in another way.
        """
        return self._with_room(lambda: self._gathered(parts))

    def _gathered(self, parts: Sequence[Part]) -> Cache:
        width = max(part.length for part in parts)
        gathered = [
            self._gather_layer(parts, layer=layer, width=width)
            for layer in range(len(self.cache_names))
        ]
        return Cache(gathered, len(parts), width)

    def _gather_layer(self, parts: Sequence[Part], *, layer: int, width: int) -> Held:
        target = self._take(len(parts), width)
        stream = self._lane.stream
        if any(part.length < width for part in parts):
            # What is masked is multiplied by nothing, and must be a number.
            stream.clear(target.address, self._bytes(len(parts), width))
        for row, part in enumerate(parts):
            if part.length:
                source = part.cache.values[layer].address
                row_bytes = self._bytes(1, width)
                begin = target.address + row * row_bytes
                stream.copy(self._block(part, source=source, row=begin, width=width))
        return target

    def _block(self, part: Part, *, source: int, row: int, width: int) -> Block:
        """Return where a sequence's columns are, and where they go.

        Args:
            part: the sequence.
            source: where its cache begins.
            row: where its new row begins.
            width: columns of the new cache.
        """
        column = self._size * self._dtype.itemsize
        before = part.cache.width * column
        return Block(
            source=source + part.row * self._heads * before + part.pad * column,
            source_pitch_bytes=before,
            target=row + (width - part.length) * column,
            target_pitch_bytes=width * column,
            width_bytes=part.length * column,
            height=self._heads,
        )

    def _shape(self, rows: int, width: int) -> Shape:
        return (rows, self._heads, width, self._size)

    def _bytes(self, rows: int, width: int) -> int:
        return prod(self._shape(rows, width)) * self._dtype.itemsize

    def _take(self, rows: int, width: int) -> Held:
        return self._arena.take(self._bytes(rows, width))
