"""Two attempts race for the first token; the loser is cancelled.

Each runs in a lane of its own.  The first lane that has something to say claims
the answer: the other is cancelled, and what comes from then on goes to the client.
An attempt that fails before that leaves the race to the other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import InferenceError
from atomr_infer.model.batch import RawChunk

if TYPE_CHECKING:
    from atomr_infer.model.batch import TokenChunk
    from atomr_infer.serving.requests.delivery import Attempt
    from atomr_infer.serving.requests.leg import Leg
    from atomr_infer.serving.requests.terms import Receiver

# More than this before the first content, and it counts as content.
_MAX_EARLY = 64

Ask = Callable[["Leg", "Receiver"], Awaitable[object]]


class Lane:
    """One of the attempts; a receiver of its chunks.

    Attributes:
        leg: who is asked.
        error: what it failed with; None: it did not (yet).
        noted: whether its loss has been told and billed.
        under_way: set when it has its permit, or none any more.
    """

    def __init__(self, leg: Leg, race: Race) -> None:
        self.leg = leg
        self.error: Exception | None = None
        self.noted = False
        self.under_way = trio.Event()
        self._race = race
        self._scope = trio.CancelScope()
        self._early: list[RawChunk] = []

    @property
    def begun(self) -> bool:
        """Whether the sink has been told that an answer starts."""
        return self._race.winner is self and self._race.receiver.begun

    @property
    def cancelled(self) -> bool:
        """Whether it has lost."""
        return self._scope.cancel_called

    async def run(self, ask: Ask) -> None:
        """Make the attempt; what it raises is kept for the race."""
        try:
            with self._scope:
                await ask(self.leg, self)
        except Exception as error:  # noqa: BLE001 - raised by the race, bare
            self.error = error
        finally:
            self.under_way.set()
            self._race.moved()

    def admitted(self) -> None:
        """Take the news that the attempt has its permit."""
        self.under_way.set()

    def cancel(self) -> None:
        """Lose."""
        self._scope.cancel()

    async def chunk(self, chunk: TokenChunk | RawChunk, attempt: Attempt) -> None:
        """Take the next chunk: claim the answer, or deliver."""
        race = self._race
        if race.winner is None:
            silent = not (chunk.has_content or chunk.finish_reason or chunk.usage)
            if silent and len(self._early) < _MAX_EARLY:
                if isinstance(chunk, RawChunk):
                    self._early.append(chunk)
                return
            race.claim(self)
            for early in self._early:
                await race.receiver.chunk(early, attempt)
        elif race.winner is not self:
            await trio.sleep_forever()  # it has lost, and is being cancelled
        await race.receiver.chunk(chunk, attempt)


class Race:
    """A request's attempts, of which one may answer.

    Attributes:
        receiver: where the winner's chunks go.
        lanes: the attempts, the first one first.
        winner: who answers; None: it is open.
    """

    def __init__(self, receiver: Receiver, on_claim: Callable[[Race], None]) -> None:
        """Begin without anybody.

        Args:
            receiver: where the winner's chunks go.
            on_claim: called when somebody wins, before the first chunk goes on.
        """
        self.receiver = receiver
        self.lanes: list[Lane] = []
        self.winner: Lane | None = None
        self._on_claim = on_claim
        self._moved = trio.Event()

    def claim(self, lane: Lane) -> None:
        """Let a lane win."""
        self.winner = lane
        for other in self.lanes:
            if other is not lane:
                other.cancel()
        self._on_claim(self)
        self.moved()

    def moved(self) -> None:
        """Wake who waits: somebody has won or failed."""
        self._moved.set()

    async def run(
        self, first: Leg, second: Callable[[], Leg | None], ask: Ask, *, after_s: float
    ) -> None:
        """Make one attempt, and another when the first is slow.

        Args:
            first: who is asked at once.
            second: returns who else is asked; None: nobody.
            ask: makes an attempt.
            after_s: seconds from the first one's permit to the second attempt.

        Raises:
            InferenceError: the winner's, or the first's when nobody has won.

        Cancellation: ends both.
        """
        async with trio.open_nursery() as nursery:
            lane = self._enter(first)
            nursery.start_soon(lane.run, ask)
            nursery.start_soon(self._hedge, nursery, second, ask, after_s)
        self._raise()

    def _raise(self) -> None:
        for lane in self.lanes:
            if lane.error is not None and not isinstance(lane.error, InferenceError):
                raise lane.error  # a bug, in whichever lane
        told = self.winner or self.lanes[0]
        if told.error is not None:
            raise told.error

    def _enter(self, leg: Leg) -> Lane:
        lane = Lane(leg, self)
        self.lanes.append(lane)
        return lane

    async def _hedge(
        self,
        nursery: trio.Nursery,
        second: Callable[[], Leg | None],
        ask: Ask,
        after_s: float,
    ) -> None:
        await self.lanes[0].under_way.wait()
        with trio.move_on_after(after_s):
            await self._moved.wait()
        if self._moved.is_set():
            return
        leg = second()
        if leg is not None:
            nursery.start_soon(self._enter(leg).run, ask)
