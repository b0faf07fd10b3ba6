"""Number the tool calls of one choice: dense, stable, in order of appearance.

Upstreams number them in every way there is: from 0 again in each chunk, with
gaps, or not at all, with a whole call in one chunk or its pieces in many.  What
holds for all of them: a new id with a name is a new call.  A new id without one,
at an index that has a call, is that call's: some servers send one with each piece.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.wire.openai.upstream_delta import NO_INDEX

if TYPE_CHECKING:
    from atomr_infer.model.batch import ToolCallDelta


class ToolCallNumbers:
    """The calls of one choice so far.

    >>> from atomr_infer.model.batch import ToolCallDelta
    >>> numbers = ToolCallNumbers("r1")
    >>> numbers.renumber(ToolCallDelta(index=0, id="a", name="f")).index
    0
    >>> numbers.renumber(ToolCallDelta(index=0, id="b", name="g")).index
    1
    >>> numbers.renumber(ToolCallDelta(index=0, arguments="{}"))
    ToolCallDelta(index=1, id=None, name=None, arguments='{}', signature=None)
    """

    def __init__(self, seed: str) -> None:
        """Begin with no call.

        Args:
            seed: what the ids of calls without one are made of.
        """
        self._seed = seed
        self._by_id: dict[str, int] = {}
        self._by_native: dict[int, int] = {}
        self._native: dict[int, int] = {}
        self._ids: list[str] = []
        self._named: set[int] = set()
        self._count = 0

    def renumber(self, delta: ToolCallDelta) -> ToolCallDelta:
        """Return the delta under our number; its id and name only once."""
        number = self._known(delta)
        if number is None:
            return self._begin(delta)
        if delta.index != NO_INDEX:
            self._by_native[delta.index] = number
        name = None
        if delta.name is not None and number not in self._named:
            self._named.add(number)
            name = delta.name
        return attrs.evolve(delta, index=number, id=None, name=name)

    def _known(self, delta: ToolCallDelta) -> int | None:
        if delta.id is not None:
            here = self._by_native.get(delta.index)
            if here is not None and self._ids[here] == delta.id:
                return here
            number = self._by_id.get(delta.id)
            if number is None and delta.name is None:
                return here
            return None if self._is_another(delta, number) else number
        if delta.index in self._by_native:
            return self._by_native[delta.index]
        # A piece without id, index and name goes on with the last call.
        if delta.index == NO_INDEX and delta.name is None and self._count:
            return self._count - 1
        return None

    def _is_another(self, delta: ToolCallDelta, number: int | None) -> bool:
        """Whether a named call at an index of its own has the id of one before."""
        if number is None or delta.name is None or delta.index == NO_INDEX:
            return False
        return self._native.get(number, delta.index) != delta.index

    def _begin(self, delta: ToolCallDelta) -> ToolCallDelta:
        number = self._count
        self._count += 1
        identity = delta.id or f"call_{self._seed}_{number}"
        self._by_id[identity] = number
        self._ids.append(identity)
        if delta.index != NO_INDEX:
            self._by_native[delta.index] = number
            self._native[number] = delta.index
        if delta.name is not None:
            self._named.add(number)
        return attrs.evolve(delta, index=number, id=identity)
