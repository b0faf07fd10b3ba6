"""Links that were undone here while the other node may not know of it yet.

Both ends of a link can link and unlink at any time, and what they say crosses on its
way.  A link that the other end made before it heard of our unlink would come up again
here, and be gone there.  So an unlink has an id, and until the other end has said
that it handled it, a link from there is one that our unlink is about to undo: it is
ignored.

Pure.

Source: Erlang's distribution protocol, ``UNLINK_ID`` and ``UNLINK_ID_ACK``.
"""

from __future__ import annotations

from typing import TypeAlias

Pair: TypeAlias = tuple[int, int]
"""The number of our process, and that of theirs."""


class Unlinks:
    """The unlinks of one connection that were not acknowledged yet."""

    __slots__ = ("_last", "_pending")

    def __init__(self) -> None:
        self._pending: dict[Pair, int] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, pair: Pair) -> int:
        """Note an unlink; return the id to send with it."""
        self._last += 1
        self._pending[pair] = self._last
        return self._last

    def linked(self, pair: Pair) -> None:
        """Note that our end links again: what comes of that counts."""
        self._pending.pop(pair, None)

    def covers(self, pair: Pair) -> bool:
        """Return whether a link that comes from the other end is undone already."""
        return pair in self._pending

    def acknowledged(self, pair: Pair, number: int) -> None:
        """Note that the other end has handled an unlink."""
        if self._pending.get(pair) == number:
            del self._pending[pair]
