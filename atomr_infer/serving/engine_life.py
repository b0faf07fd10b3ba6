"""The life of one open runner, and the generations that end with it.

A runner may be closed while generations run on it: its deployment is removed,
or its process is stopped.  A bridged runner tells its streams by itself, a
client of a remote provider need not; so each generation holds on to the life
of the engine it runs on, and is cancelled when that ends.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from atomr_infer.serving.fresh_error import fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

    from atomr_infer.errors import InferenceError


class EngineLife:
    """From a runner's opening to its end.

    Attributes:
        error: why it ended; None while it lasts.
    """

    def __init__(self) -> None:
        self.error: InferenceError | None = None
        self._scopes: set[trio.CancelScope] = set()

    @contextmanager
    def hold(self, scope: trio.CancelScope) -> Iterator[None]:
        """Let ``scope`` be cancelled when this life ends during the block.

        Raises:
            InferenceError: it has ended already.
        """
        if self.error is not None:
            raise fresh(self.error)
        self._scopes.add(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)

    def end(self, error: InferenceError) -> None:
        """End every generation with ``error``; the first call counts."""
        if self.error is None:
            self.error = error
            for scope in self._scopes:
                scope.cancel()
