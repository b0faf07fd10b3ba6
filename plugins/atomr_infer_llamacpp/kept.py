"""What is kept of sequences that ended, for prompts that begin alike.

A conversation's next request begins with all that was said before, and the requests
of one program with the same instructions.  So a sequence that ends stays in the cache
until its place is wanted, and a prompt that begins as it does goes on from there.

Only whole pieces are used again, of as many tokens as are read in one step: the rest of
the prompt is then read in the pieces in which it would have been read anyway, and what
comes out is the same.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@attrs.define(eq=False)
class Place:
    """A sequence in the cache.

    Attributes:
        seq: its number.
        tokens: those that it has there, in their order.
    """

    seq: int
    tokens: list[int] = attrs.field(factory=list)


def shared_tokens(place: Place, prompt: Sequence[int], piece: int) -> int:
    """Return how many of a prompt's first tokens a sequence has, in whole pieces.

    The prompt's last token is never one of them: what follows it is what is wanted.

    >>> shared_tokens(Place(0, [1, 2, 3, 4, 9]), [1, 2, 3, 4, 5], 2)
    4
    >>> shared_tokens(Place(0, [1, 2, 3, 4]), [1, 2, 3, 4], 2)
    2
    """
    most = min(len(place.tokens), len(prompt) - 1) // piece
    for pieces in range(most):
        begin = pieces * piece
        end = begin + piece
        if place.tokens[begin:end] != list(prompt[begin:end]):
            return begin
    return most * piece


def nearest(
    places: Iterable[Place], prompt: Sequence[int], piece: int
) -> tuple[Place | None, int]:
    """Return the sequence that has most of a prompt, and how much; None: none does."""
    found: tuple[Place | None, int] = (None, 0)
    for place in places:
        shared = shared_tokens(place, prompt, piece)
        if shared > found[1]:
            found = place, shared
    return found


class Kept:
    """Sequences that ended, the one that was not used for the longest first."""

    def __init__(self) -> None:
        self._places: list[Place] = []

    @property
    def places(self) -> Sequence[Place]:
        """Those that are kept."""
        return self._places

    @property
    def tokens(self) -> int:
        """How many they have, each counted for itself."""
        return sum(len(place.tokens) for place in self._places)

    def add(self, place: Place) -> list[Place]:
        """Keep one more; return those that are of no use beside the others."""
        for other in self._places:
            if other.tokens[: len(place.tokens)] == place.tokens:
                self.touch(other)
                return [place]
        covered = [o for o in self._places if place.tokens[: len(o.tokens)] == o.tokens]
        for other in covered:
            self._places.remove(other)
        self._places.append(place)
        return covered

    def touch(self, place: Place) -> None:
        """Note that one was used now."""
        self.take(place)
        self._places.append(place)

    def take(self, place: Place) -> None:
        """Keep one no more."""
        self._places.remove(place)

    def make_room(
        self, *, places: int, tokens: int, but_last: Place | None = None
    ) -> list[Place]:
        """Take out what must go; return it.

        Args:
            places: how many are wanted, at least.
            tokens: how many the others may have.
            but_last: goes only when nothing else is left.
        """
        order = [place for place in self._places if place is not but_last]
        order += [place for place in self._places if place is but_last]
        gone: list[Place] = []
        while order and (len(gone) < places or self.tokens > tokens):
            gone.append(order.pop(0))
            self.take(gone[-1])
        return gone
