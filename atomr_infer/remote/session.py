"""The session of a remote runner: its client and its keys, remade without a cut.

The lower of the two tiers of a remote replica.  The engine core above it is
stable; a session is made anew when the upstream refuses a key, when a key is
changed where it is kept, and on demand (``Credentials.renew``).  What else it is
made of, its endpoint and options, another runner has in a session of its own
(:mod:`atomr_infer.serving.deployments.replacing`).

Made anew means another *generation*: a client of its own with connections of
its own.  New attempts use the new one.  Those that run keep the generation and
the key that they began with, and the last one to leave closes it::

    attempts   a ──────────────┐
                 b ── 401 ──┐  │
    client 1   ────────────────┤ closed
    client 2                └── b again, c, d ...

An attempt whose key is refused is made again with another key, if there is one:
of a single key once, when it has changed; of a pool with each key once.  That
happens before the answer begins, so nothing is ever said twice.

Each client lives in a task of its own, because a client may hold a nursery,
which must be left by the task that entered it.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from atomr.core.exits import unwrap
from atomr_infer.errors import InferenceError
from atomr_infer.runtimes.credentials import NO_HEADERS, Grant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from atomr_infer.model.secret import Secret
    from atomr_infer.runtimes.credentials import Credentials

log = logging.getLogger(__name__)

C = TypeVar("C")
T = TypeVar("T")


@asynccontextmanager
async def open_session(
    open_client: Callable[[], AbstractAsyncContextManager[C]], credentials: Credentials
) -> AsyncIterator[Session[C]]:
    """Open a session; the block's end closes its clients, used ones too.

    Args:
        open_client: opens one client; called for each generation.
        credentials: the keys.

    Raises:
        Exception: what opening the first client raises.
    """
    try:
        async with trio.open_nursery() as nursery:
            session = Session(open_client, credentials, nursery)
            await session.start()
            yield session
            session.close()
    except BaseExceptionGroup as group:
        # The nursery is ours alone: what the block raised must leave it bare.
        error = unwrap(group)
        if isinstance(error, BaseExceptionGroup):
            raise
        raise error from error.__cause__


class Generation(Generic[C]):
    """One client, the attempts that use it, and the end of its task."""

    def __init__(self, client: C, version: int) -> None:
        self.client = client
        self.version = version
        self.users = 0
        self.retired = False
        self.unused = trio.Event()

    def retire(self) -> None:
        """Take no new attempts; close when the last one leaves."""
        self.retired = True
        self._look()

    def leave(self) -> None:
        """Count an attempt's end."""
        self.users -= 1
        self._look()

    def _look(self) -> None:
        if self.retired and not self.users:
            self.unused.set()


class Session(Generic[C]):
    """A client and its keys.  Made by :func:`open_session`.

    Attributes:
        credentials: the keys.
        generation: how many clients there have been.
    """

    def __init__(
        self,
        open_client: Callable[[], AbstractAsyncContextManager[C]],
        credentials: Credentials,
        nursery: trio.Nursery,
    ) -> None:
        self._open_client = open_client
        self.credentials = credentials
        self._nursery = nursery
        self._making = trio.Lock()
        self._current: Generation[C]
        self.generation = 0

    def __repr__(self) -> str:
        return f"<Session {self.generation}: {self._current.client!r}>"

    @property
    def client(self) -> C:
        """The client that a new attempt would use."""
        return self._current.client

    @property
    def current(self) -> Generation[C] | None:
        """The generation that a new attempt joins; None: it must be made first."""
        up_to_date = self._current.version == self.credentials.version
        return self._current if up_to_date else None

    async def start(self) -> None:
        """Open the first client."""
        self._current = await self._make()

    def close(self) -> None:
        """Close every client at once."""
        self._nursery.cancel_scope.cancel()

    def attempt(
        self,
        begin: Callable[[C, Secret | None], AbstractAsyncContextManager[T]],
        *,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> AbstractAsyncContextManager[T]:
        """Return a block that begins an exchange, with another key if need be.

        Args:
            begin: begins an exchange with a client and a key; entering it ends
                when the upstream has taken the request.
            headers: the client's headers that may hold a key, by lower-case name.

        Raises:
            InferenceError: as ``begin`` raises it, or as the keys' exhaustion.

        Cancellation: ends the exchange before it passes on.
        """
        return _Attempt(self, self.credentials, begin, headers)

    async def join(self) -> Generation[C]:
        """Join the generation of the keys' version, made first where need be."""
        if self._current.version != self.credentials.version:
            async with self._making:
                if self._current.version != self.credentials.version:
                    await self._replace()
        self._current.users += 1
        return self._current

    async def _replace(self) -> None:
        made = await self._make()
        retired, self._current = self._current, made
        retired.retire()
        log.info(
            "session %d replaces the last one, which %d attempts still use",
            self.generation,
            retired.users,
        )

    async def _make(self) -> Generation[C]:
        # Read first: what changes while the client opens makes another one.
        version = self.credentials.version
        made: Generation[C] = await self._nursery.start(self._live, version)
        self.generation += 1
        return made

    async def _live(
        self, version: int, task_status: trio.TaskStatus[Generation[C]]
    ) -> None:
        async with self._open_client() as client:
            generation = Generation(client, version)
            task_status.started(generation)
            await generation.unused.wait()


class _Attempt(Generic[C, T]):
    """The block of one attempt.

    By hand, because generators and exit stacks cost more than the exchange.
    """

    __slots__ = (
        "_begin",
        "_block",
        "_credentials",
        "_generation",
        "_grant",
        "_headers",
        "_session",
    )

    def __init__(
        self,
        session: Session[C],
        credentials: Credentials,
        begin: Callable[[C, Secret | None], AbstractAsyncContextManager[T]],
        headers: Mapping[str, str],
    ) -> None:
        self._session = session
        self._credentials = credentials
        self._begin = begin
        self._headers = headers
        self._generation: Generation[C]
        self._block: AbstractAsyncContextManager[T]
        self._grant: Grant

    async def __aenter__(self) -> T:
        tried: list[Grant] = []
        credentials = self._credentials
        grant = await credentials.current(self._headers)
        while True:
            try:
                value = await self._enter(grant)
            except InferenceError as error:
                if not credentials.refused(grant, error):
                    raise
                tried.append(grant)
                grant = await self._next(tried, error)
            except BaseException:
                credentials.released(grant)
                raise
            else:
                credentials.accepted(grant)
                self._grant = grant
                return value

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if isinstance(exc, InferenceError):
            # An answer that began can still end with "your quota is spent".
            self._credentials.refused(self._grant, exc)
        try:
            return await self._block.__aexit__(exc_type, exc, traceback)
        finally:
            self._generation.leave()

    async def _enter(self, grant: Grant) -> T:
        """Enter one exchange; on failure nothing of it stays."""
        generation = await self._session.join()
        try:
            block = self._begin(generation.client, grant.secret)
            value = await block.__aenter__()
        except BaseException:
            generation.leave()
            raise
        self._generation, self._block = generation, block
        return value

    async def _next(self, tried: list[Grant], error: InferenceError) -> Grant:
        try:
            grant = await self._credentials.another(tried)
        except InferenceError as none_left:
            raise none_left from error
        if grant is None:
            raise error
        log.info("the upstream refused a key (%s); trying another", error.kind)
        return grant
