"""The process that starts and stops the singleton, one after the other.

It waits where the election must not: for the singleton's ``init`` and its end.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import attrs

from atomr.core.child_spec import ChildSpec, Restart
from atomr.core.exits import NOPROC, SHUTDOWN
from atomr.core.messages import Down
from atomr.errors import CallError, ChildError, StartError
from atomr.otp import Supervisor, start_child, terminate_child
from atomr.process import monitor, receive, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.refs import Pid, Ref


@attrs.frozen
class Begin:
    """Start it.

    Attributes:
        epoch: of the term.
        runner: whom this is for; another one lets it be.
    """

    epoch: int
    runner: int


@attrs.frozen
class End:
    """Stop it, and say so when it has ended.

    Attributes:
        epoch: of the term.
    """

    epoch: int


@attrs.frozen
class Ready:
    """A runner has started, and nothing runs: what an earlier one began has ended.

    Attributes:
        runner: its number.
    """

    runner: int


@attrs.frozen
class Begun:
    """It has started.

    Attributes:
        epoch: of the term.
    """

    epoch: int


@attrs.frozen
class Ended:
    """Nothing of it runs any more.

    Attributes:
        epoch: of the term.
        problem: empty: it was stopped.
    """

    epoch: int
    problem: str = ""


Order: TypeAlias = Begin | End | Down


class Runner:
    """Starts and stops.

    Args:
        spec: of the singleton.
        stage: name of the supervisor that it runs under.
        server: name of who is told.
        holds: says whether the lease is held by a term, now.
    """

    def __init__(
        self,
        spec: ChildSpec,
        *,
        stage: str,
        server: str,
        holds: Callable[[int], bool],
    ) -> None:
        # A supervisor of its own: the singleton's restarts are its own affair.
        self._work = ChildSpec(
            id=spec.id, start=lambda: Supervisor([spec]), restart=Restart.TEMPORARY
        )
        self._stage = stage
        self._server = server
        self._holds = holds
        self._running: Pid | None = None
        self._ref: Ref | None = None
        self._epoch = self._number = 0

    async def run(self) -> None:
        """Follow the server's orders, in their order."""
        self._number += 1
        self._forget()
        self._say(Ready(self._number))
        while True:
            match await receive():
                case Begin(epoch, runner) if runner == self._number:
                    self._epoch = epoch
                    await self._begin()
                case End():
                    await self._end()
                case Down(ref=ref, reason=reason) if ref == self._ref:
                    self._forget()
                    is_stop = reason == SHUTDOWN or reason is NOPROC
                    self._say(Ended(self._epoch, "" if is_stop else f"{reason}"))

    def _forget(self) -> None:
        self._running = self._ref = None

    async def _begin(self) -> None:
        # The order may have waited behind a slow end, longer than its term.
        if not self._holds(self._epoch):
            self._say(Ended(self._epoch))
            return
        try:
            self._running = await start_child(self._stage, self._work)
        except (StartError, CallError) as error:
            self._say(Ended(self._epoch, f"it did not start here: {error}"))
            return
        self._ref = monitor(self._running)
        self._say(Begun(self._epoch))

    async def _end(self) -> None:
        if self._running is None:
            return  # whoever asked was told, or is about to be
        # It may have ended meanwhile, and its supervisor with it.
        with suppress(ChildError, CallError):
            await terminate_child(self._stage, self._running)
        self._forget()
        self._say(Ended(self._epoch))

    def _say(self, message: Ready | Begun | Ended) -> None:
        send(self._server, message)
