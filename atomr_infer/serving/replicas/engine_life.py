"""The life of one open runner, and the generations that end with it.

A runner may be closed while generations run on it: its deployment is removed,
or its process is stopped.  A bridged runner tells its streams by itself, a
client of a remote provider need not; so each generation holds on to the life
of the engine it runs on, and is cancelled when that ends.

One that another runner has taken the place of is *retired*: nobody new uses it, and
it is closed when the last permit that was given for it has come back.

One that nobody has used for long may *doze*: its runner is closed, and another one
is opened when somebody needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.serving.replicas.fresh_error import fresh

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from atomr_infer.errors import InferenceError


class EngineLife:
    """From a runner's opening to its end.

    Attributes:
        error: why it ended; None while it lasts.
        users: permits that were given for it and are not back.
        uses: permits that were given for it in all, but those for probes.
        probes: those of the users that are probes.
        answered: whether somebody got an answer of it; to be set.
        retired: whether nobody begins to use it any more.
        unused: set when it is retired, and nobody uses it.
        serves: cancelled then, and when it dozes; in it one waits for the runner's
            failure.
        nap: set when it has dozed for long enough; None: it does not doze.
    """

    def __init__(self) -> None:
        self.error: InferenceError | None = None
        self.users = 0
        self.uses = 0
        self.probes = 0
        self.answered = False
        self.nap: trio.Event | None = None
        self.unused = trio.Event()
        self.serves = trio.CancelScope()
        self.retired = False
        self._scopes: set[trio.CancelScope] = set()

    def enter(self, *, is_probe: bool = False) -> None:
        """Count a permit that is given."""
        self.users += 1
        if is_probe:
            self.probes += 1
        else:
            self.uses += 1

    def leave(self, *, is_probe: bool = False) -> None:
        """Count a permit that is back."""
        self.users -= 1
        self.probes -= is_probe
        self._look()

    def retire(self) -> None:
        """Take the news that nobody will begin to use it."""
        self.retired = True
        self.wake()
        self._look()

    def doze(self) -> None:
        """Have its runner closed until :meth:`wake`; nobody uses it."""
        self.nap = trio.Event()
        self.serves.cancel()

    def wake(self) -> None:
        """Have another runner opened, where this one's is closed or being closed."""
        if self.nap is not None:
            self.nap.set()

    def _look(self) -> None:
        if self.retired and not self.users:
            self.unused.set()
            self.serves.cancel()

    def hold(self, scope: trio.CancelScope) -> AbstractContextManager[None]:
        """Return a block in which this life's end cancels ``scope``.

        Raises:
            InferenceError: when the block is entered: it has ended already.
        """
        return _Hold(self, self._scopes, scope)

    def end(self, error: InferenceError) -> None:
        """End every generation with ``error``; the first call counts."""
        if self.error is None:
            self.error = error
            for scope in self._scopes:
                scope.cancel()


class _Hold:
    """The block of :meth:`EngineLife.hold`, by hand: it is entered for each request."""

    __slots__ = ("_life", "_scope", "_scopes")

    def __init__(
        self, life: EngineLife, scopes: set[trio.CancelScope], scope: trio.CancelScope
    ) -> None:
        self._life = life
        self._scopes = scopes
        self._scope = scope

    def __enter__(self) -> None:
        if self._life.error is not None:
            raise fresh(self._life.error)
        self._scopes.add(self._scope)

    def __exit__(self, *_: object) -> None:
        self._scopes.discard(self._scope)
