"""What is left to chance, as an argument: a ``random.Random`` has all of it.

Pure: a node in a simulation gets a generator with a seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class Draw(Protocol):
    """A generator of random choices."""

    def random(self) -> float:
        """Return a number from 0 to just below 1."""
        ...

    def randrange(self, stop: int, /) -> int:
        """Return a number from 0 to just below ``stop``."""
        ...

    def choice(self, seq: Sequence[T], /) -> T:
        """Return one of these."""
        ...

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """Return ``k`` of these, none twice."""
        ...

    def shuffle(self, x: Any, /) -> None:  # noqa: ANN401 - as random.Random
        """Put a list into another order, in place."""
        ...
