"""A switch that ends flows from outside."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


class KillSwitch:
    """Ends every flow that was told to run until it: from any task of the run.

    What a flow has passed the switch is still dealt with behind it; what is before
    it is cancelled, and lost.
    """

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._used = False
        self._error: Exception | None = None

    @property
    def used(self) -> bool:
        """True once it was used."""
        return self._used

    def shutdown(self) -> None:
        """End the flows as if they had no more events."""
        self._use(None)

    def abort(self, error: Exception) -> None:
        """End the flows with an error."""
        self._use(error)

    def _use(self, error: Exception | None) -> None:
        if self._used:
            return  # the first use counts
        self._used, self._error = True, error
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """End the block when the switch is used."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    def raise_error(self, *, besides: Exception | None = None) -> None:
        """Raise what the flows are to end with, if there is anything.

        Args:
            besides: what ending a flow has raised itself; it becomes a note.
        """
        if self._error is not None:
            if besides is not None and besides is not self._error:
                self._error.add_note(f"ending the flow raised {besides!r}")
            raise self._error
