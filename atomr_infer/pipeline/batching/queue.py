"""Which of the items that wait go into the next batch, and when it begins.

Items of one *lane* may be in one batch, and of a lane those of about one size: what an
engine runs together costs what the longest costs, times their number.

A batch begins when it is full, when its oldest item has waited long enough, or, where
the wait is adaptive, at once when no batch of its lane and size is under way: so who
comes alone waits for nobody, and what comes while a batch runs is the next one.

Among batches, and among items that are too many for one, the higher priority goes
first; each ``AGING_S`` of waiting are worth a step of priority, so that nobody waits
for ever.

Pure: ``now`` is an argument, in monotonic seconds.

Source: Nagle, RFC 896, for the adaptive wait.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Iterable
from itertools import pairwise
from typing import Generic, TypeVar

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    non_empty,
    not_negative,
)
from atomr_infer.pipeline.asking.options import one_of

K = TypeVar("K", bound=Hashable)

AGING_S = 10.0
"""The wait that is worth one step of priority, in seconds."""

_optional = attrs.validators.optional


def _bounds(given: object) -> tuple[int, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidValueError("buckets", given, "is no list of numbers")
    bounds = tuple(given)
    for each in bounds:
        if isinstance(each, bool) or not isinstance(each, int) or each < 1:
            raise InvalidValueError("buckets", each, "is no number of at least 1")
    if any(one >= other for one, other in pairwise(bounds)):
        raise InvalidValueError("buckets", given, "do not grow")
    return bounds


@attrs.frozen(kw_only=True)
class BatchRules:
    """What a batch may be, and how long it waits.

    Attributes:
        max_batch: items in a batch.
        max_tokens: what their sizes may be together; one item alone may be larger;
            None: whatever they are.
        max_wait_s: how long an item waits for others.
        wait: ``adaptive``: only while a batch of its kind is under way; ``always``.
        concurrency: batches under way at once.
        max_queue: items that may wait; who comes to a full queue is refused.
        buckets: sizes up to which items are batched with each other; those that are
            larger than the last one are with each other, too.
    """

    max_batch: int = attrs.field(default=32, validator=at_least(1))
    max_tokens: int | None = attrs.field(default=None, validator=_optional(at_least(1)))
    max_wait_s: float = attrs.field(default=0.01, validator=not_negative)
    wait: str = attrs.field(default="adaptive", validator=one_of("adaptive", "always"))
    concurrency: int = attrs.field(default=4, validator=at_least(1))
    max_queue: int = attrs.field(default=10_000, validator=at_least(1))
    buckets: tuple[int, ...] = attrs.field(default=(), converter=_bounds)


@attrs.frozen(kw_only=True)
class BatchingOptions(BatchRules):
    """A deployment that asks another one for many requests at once.

    Attributes:
        model: the public name of who is asked.
    """

    model: str = attrs.field(validator=non_empty)

    def __attrs_post_init__(self) -> None:
        if self.wait == "always" and not self.max_wait_s:
            raise ConfigError('max_wait_s is 0, and wait "always": nobody would wait')

    def asks(self) -> tuple[str, ...]:
        """The model that is asked."""
        return (self.model,)


@attrs.frozen
class _Item:
    """An item that waits.

    Attributes:
        size: what it adds to a batch.
        at: since when it waits.
        rank: when it came, less what its priority is worth; then in which order.
    """

    size: int
    at: float
    rank: tuple[float, int]


@attrs.define(eq=False)
class _Kind(Generic[K]):
    """Items that may be in one batch.

    Attributes:
        levels: those that wait, in order, by priority.
        count: how many wait.
        size: what they are together.
        under_way: batches of its kind.
    """

    levels: dict[int, dict[K, _Item]] = attrs.field(factory=dict)
    count: int = 0
    size: int = 0
    under_way: int = 0

    def heads(self) -> Iterable[tuple[_Item, int]]:
        """Yield the first one of each priority; in it nobody came before."""
        for priority, items in self.levels.items():
            yield next(iter(items.values())), priority

    @property
    def oldest_at(self) -> float:
        """Since when the one waits that waits for longest."""
        return min(item.at for item, _ in self.heads())

    @property
    def rank(self) -> tuple[float, int]:
        """The rank of who is next."""
        return min(item.rank for item, _ in self.heads())

    def add(self, key: K, item: _Item, priority: int) -> None:
        """Let an item wait."""
        self.levels.setdefault(priority, {})[key] = item
        self.count += 1
        self.size += item.size

    def drop(self, key: K, priority: int) -> _Item:
        """Let an item wait no more."""
        items = self.levels[priority]
        item = items.pop(key)
        if not items:
            del self.levels[priority]
        self.count -= 1
        self.size -= item.size
        return item


@attrs.frozen(eq=False)
class Batch(Generic[K]):
    """Items that are run together.

    Attributes:
        keys: theirs, the first ones first.
        kind: the lane and the bucket.
    """

    keys: tuple[K, ...]
    kind: tuple[Hashable, int]


class BatchQueue(Generic[K]):
    """Items that wait, and the batches that are under way.

    Cost: a batch costs its items and the kinds that wait, of which there is one for
    each lane and bucket.
    """

    def __init__(self, rules: BatchRules) -> None:
        self._rules = rules
        self._kinds: dict[tuple[Hashable, int], _Kind[K]] = {}
        self._places: dict[K, tuple[tuple[Hashable, int], int]] = {}
        self._came = 0
        self._under_way = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    @property
    def under_way(self) -> int:
        """Batches that have begun and not ended."""
        return self._under_way

    @property
    def is_full(self) -> bool:
        """Whether nobody else may wait."""
        return len(self._places) >= self._rules.max_queue

    def push(
        self, key: K, lane: Hashable, *, size: int, now: float, priority: int = 0
    ) -> None:
        """Let an item wait.

        Args:
            key: what it is known by; must be new.
            lane: the same for those that may be in one batch.
            size: what it adds to a batch, in tokens.
            now: monotonic seconds.
            priority: higher goes first.
        """
        if key in self._places:
            raise ValueError(f"{key!r} waits already")
        name = lane, bisect_left(self._rules.buckets, size)
        self._came += 1
        rank = now - priority * AGING_S, self._came
        kind = self._kinds.setdefault(name, _Kind())
        kind.add(key, _Item(size, now, rank), priority)
        self._places[key] = name, priority

    def remove(self, key: K) -> bool:
        """Let an item wait no more; return whether it did."""
        if key not in self._places:
            return False
        name, priority = self._places.pop(key)
        self._kinds[name].drop(key, priority)
        self._tidy(name)
        return True

    def take(self, now: float) -> Batch[K] | None:
        """Begin the next batch; None: none may begin now.  End it by :meth:`ended`."""
        if self._under_way >= self._rules.concurrency:
            return None
        ready = [name for name, kind in self._kinds.items() if self._begins(kind, now)]
        if not ready:
            return None
        name = min(ready, key=lambda each: self._kinds[each].rank)
        kind = self._kinds[name]
        batch = Batch(tuple(self._next_of(kind)), name)
        kind.under_way += 1
        self._under_way += 1
        return batch

    def ended(self, batch: Batch[K]) -> None:
        """Note that a batch is over."""
        self._kinds[batch.kind].under_way -= 1
        self._under_way -= 1
        self._tidy(batch.kind)

    def next_at(self) -> float:
        """When a batch may begin of which nobody else has to come, or to end."""
        if self._under_way >= self._rules.concurrency:
            return math.inf
        oldest = (kind.oldest_at for kind in self._kinds.values() if kind.count)
        return min(oldest, default=math.inf) + self._rules.max_wait_s

    # --- inside -------------------------------------------------------------------

    def _begins(self, kind: _Kind[K], now: float) -> bool:
        rules = self._rules
        if not kind.count:
            return False
        if kind.count >= rules.max_batch:
            return True
        if rules.max_tokens is not None and kind.size >= rules.max_tokens:
            return True
        if rules.wait == "adaptive" and not kind.under_way:
            return True
        # As next_at() says it, so that who wakes then finds it true.
        return kind.oldest_at + rules.max_wait_s <= now

    def _next_of(self, kind: _Kind[K]) -> Iterable[K]:
        """Yield the items of the next batch, which wait no more."""
        most, size = self._rules.max_tokens, 0
        for number in range(min(kind.count, self._rules.max_batch)):
            head, priority = min(kind.heads(), key=lambda each: each[0].rank)
            size += head.size
            if number and most is not None and size > most:
                return
            key = next(iter(kind.levels[priority]))
            kind.drop(key, priority)
            del self._places[key]
            yield key

    def _tidy(self, name: tuple[Hashable, int]) -> None:
        kind = self._kinds[name]
        if not kind.count and not kind.under_way:
            del self._kinds[name]
