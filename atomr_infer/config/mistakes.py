"""Mistakes that have nothing to do with each other, told together.

Who writes a file wants to hear of all that is wrong with it, and not of one mistake
after the other.  What could only be read if something else were right is left out.

Pure.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Mistakes:
    """What was found so far.

    >>> mistakes = Mistakes()
    >>> for line in (7, 3):
    ...     with mistakes.kept():
    ...         raise ConfigError("no such key", path="atomr.toml", line=line)
    >>> mistakes.tell()
    Traceback (most recent call last):
    atomr_infer.errors.ConfigError: atomr.toml:3: no such key
    atomr.toml:7: no such key
    """

    def __init__(self) -> None:
        self._found: list[ConfigError] = []
        self._told: set[str] = set()

    def __len__(self) -> int:
        """How many there are; a collection without any is false."""
        return len(self._found)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the mistake that is met within, and go on behind it."""
        try:
            yield
        except ConfigError as error:
            self.keep(error)

    def keep(self, error: ConfigError) -> None:
        """Keep a mistake, and those that were found with it."""
        self._found += [each for each in error.all if each.told not in self._told]
        self._told |= {each.told for each in error.all}

    def tell(self) -> None:
        """Raise what was found, if anything was.

        Raises:
            ConfigError: the first by its line, with the others in ``more``.
        """
        if self._found:
            first, *more = sorted(self._found, key=lambda error: error.line or 0)
            first.more = tuple(more)
            raise first
