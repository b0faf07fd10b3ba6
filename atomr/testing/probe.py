"""Probe: a process that the test drives from its own task.

It has a pid, a mailbox, links and monitors like any other, and no code of its
own: what comes waits until the test takes it.  It traps exits, so that the end
of what it is linked to is a message and not its own end.

A call that comes to it waits as well: the test answers it, or lets it time out.

Source: Akka's ``TestProbe``; ExUnit, where the test itself is a process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar, overload

import trio

from atomr.core.exits import NORMAL
from atomr.core.messages import Down, Exit
from atomr.process import names
from atomr.process.calls import Cast, From
from atomr.process.context import current_node
from atomr.process.parking import ParkSpot
from atomr.testing.clocks import advance, settle, standing_clock
from atomr.testing.expecting import (
    DEFAULT_TIMEOUT_S,
    ExpectationError,
    is_or_holds,
    listed,
    refute,
    shown,
    wanted,
)
from atomr.testing.matching import ANYTHING, Pattern, accepts, like
from atomr.testing.probe_process import Acting, ProbeProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.refs import Name, Pid

T = TypeVar("T")

_NOTHING = object()


class ProbeCall(Generic[T]):
    """A call that came to a probe.

    Attributes:
        request: what was asked.
        from_: where the reply goes; ``from_.pid`` is who asked.
    """

    __slots__ = ("from_", "request")

    def __init__(self, from_: From, request: T) -> None:
        self.from_ = from_
        self.request = request

    def __repr__(self) -> str:
        return f"<ProbeCall {self.request!r}>"

    def reply(self, value: object) -> None:
        """Answer it; dropped when the caller gave up."""
        self.from_.reply(value)

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` in the caller."""
        self.from_.fail(error)


class Probe(Acting):
    """A process whose mailbox the test reads.

    ::

        probe = Probe("mailer")
        cast("shop", Order("tea"))
        assert (await probe.expect_cast(Mail)).subject == "your tea"

    A *pattern* is a class, a function, a value, a tuple of patterns, or what
    :func:`like` returns; see :mod:`atomr.testing.matching`.  A call is matched
    as its :class:`~atomr.process.From`, and a cast as its ``Cast``, except where
    a method says otherwise: what must not come must not come inside of one.

    Every failure is an :class:`ExpectationError` that shows what did come.

    Where a method has ``timeout_s``: under a clock that only the test moves no
    time passes, so it fails as soon as all tasks are blocked.

    Args:
        name: registered, so that code finds the probe in the place of the real
            thing; None: it has a pid only.

    Raises:
        NameTakenError: a live process holds the name.
        NoNodeError: there is no node around.
    """

    def __init__(self, name: Name | None = None) -> None:
        node = current_node()
        process = ProbeProcess(node, name or "probe")
        try:
            if name is not None:
                names.register(name, process.pid)
        except BaseException:
            process.cancel(NORMAL)
            raise
        process.started()
        super().__init__(process)
        self._taken: list[object] = []

    def __repr__(self) -> str:
        return f"<Probe {self.pid!r}, {len(self.messages)} messages>"

    @property
    def messages(self) -> tuple[object, ...]:
        """What came and was not taken, oldest first."""
        return tuple(self._process.inbox)

    @property
    def taken(self) -> tuple[object, ...]:
        """What the test took so far, in the order in which it did."""
        return tuple(self._taken)

    # --- what comes ---------------------------------------------------------------

    @overload
    async def receive(
        self, pattern: Pattern[T], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> T: ...
    @overload
    async def receive(
        self, pattern: type[T], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> T: ...
    @overload
    async def receive(
        self,
        pattern: Callable[[Any], TypeGuard[T]],
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> T: ...
    @overload
    async def receive(
        self, pattern: object = ANYTHING, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> object: ...
    async def receive(
        self, pattern: object = ANYTHING, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> object:
        """Take the oldest message that the pattern accepts; others stay.

        Args:
            pattern: what to wait for; anything.
            timeout_s: bound in seconds.

        Raises:
            ExpectationError: none came in time.
            NotAProcessError: the probe has ended.

        Cancellation: takes no message.
        """
        __tracebackhide__ = True
        found = await self._take(pattern, timeout_s)
        if found is _NOTHING:
            raise self._missed(wanted(pattern), timeout_s)
        return found

    @overload
    async def expect(
        self, pattern: Pattern[T], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> T: ...
    @overload
    async def expect(
        self, pattern: type[T], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> T: ...
    @overload
    async def expect(
        self,
        pattern: Callable[[Any], TypeGuard[T]],
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> T: ...
    @overload
    async def expect(
        self, pattern: object, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> object: ...
    async def expect(
        self, pattern: object, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> object:
        """Take the next message, which the pattern has to accept.

        Args:
            pattern: what the next message is to be.
            timeout_s: bound in seconds.

        Raises:
            ExpectationError: another one came first, and stays; or none did.
            NotAProcessError: the probe has ended.

        Cancellation: takes no message.
        """
        __tracebackhide__ = True
        if not await self._wait(lambda: bool(self._process.inbox), timeout_s):
            raise self._missed(f"{wanted(pattern)} next", timeout_s)
        first = self._process.inbox[0]
        if not accepts(pattern, first):
            after = listed("after it", self.messages[1:])
            raise ExpectationError(
                f"{self.pid!r} expected {wanted(pattern)} next, but got"
                f" {shown(first)}{after}"
            )
        return self._remove(0)

    async def expect_nothing(
        self, pattern: object = ANYTHING, *, for_s: float = 0.0
    ) -> None:
        """Check that no such message is there, or comes.

        Args:
            pattern: what must not come, by itself or inside of a call or a
                cast; anything.
            for_s: how long, in seconds; 0: until all tasks are blocked.  A clock
                that only the test moves is moved by so much.

        Raises:
            ExpectationError: one came; it stays.
            NotAProcessError: the probe has ended, so nothing could come.
        """
        __tracebackhide__ = True
        self._check_alive()
        if standing_clock() is not None:
            await advance(for_s)
        elif for_s > 0:
            await self._wait(
                lambda: any(is_or_holds(pattern, m) for m in self.messages), for_s
            )
        else:
            await settle()
        refute(self.pid, pattern, self.messages)
        self._check_alive()

    @overload
    async def expect_call(
        self, request: Pattern[T], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> ProbeCall[T]: ...
    @overload
    async def expect_call(
        self, request: type[T], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> ProbeCall[T]: ...
    @overload
    async def expect_call(
        self, request: object = ANYTHING, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> ProbeCall[Any]: ...
    async def expect_call(
        self, request: object = ANYTHING, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> ProbeCall[Any]:
        """Take the oldest call whose request the pattern accepts.

        Raises:
            ExpectationError: none came in time.
        """
        __tracebackhide__ = True
        pattern = like(From, request=request)
        found = await self._take(pattern, timeout_s)
        if not isinstance(found, From):
            raise self._missed(f"a call with {wanted(request)}", timeout_s)
        return ProbeCall(found, found.request)

    @overload
    async def expect_cast(
        self, message: Pattern[T], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> T: ...
    @overload
    async def expect_cast(
        self, message: type[T], *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> T: ...
    @overload
    async def expect_cast(
        self, message: object = ANYTHING, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> object: ...
    async def expect_cast(
        self, message: object = ANYTHING, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> object:
        """Take the oldest cast whose message the pattern accepts; return that.

        Raises:
            ExpectationError: none came in time.
        """
        __tracebackhide__ = True
        found = await self._take(like(Cast, message=message), timeout_s)
        if not isinstance(found, Cast):
            raise self._missed(f"a cast of {wanted(message)}", timeout_s)
        return found.message

    async def expect_down(
        self,
        pid: Pid | None,
        reason: object = ANYTHING,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Down:
        """Take the ``Down`` of a process that :meth:`monitor` was asked for.

        Args:
            pid: which process; None: a name that nobody had.
            reason: pattern for its exit reason.
            timeout_s: bound in seconds.

        Raises:
            ExpectationError: it did not come in time.
        """
        __tracebackhide__ = True
        return await self.receive(_of(Down, pid, reason), timeout_s=timeout_s)

    async def expect_exit(
        self,
        pid: Pid | None,
        reason: object = ANYTHING,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Exit:
        """Take the ``Exit`` that came from a process, linked or not.

        Raises:
            ExpectationError: it did not come in time.
        """
        __tracebackhide__ = True
        return await self.receive(_of(Exit, pid, reason), timeout_s=timeout_s)

    def clear(self) -> tuple[object, ...]:
        """Take all that waits."""
        messages = self.messages
        while self._process.inbox:
            self._remove(0)
        return messages

    # --- how --------------------------------------------------------------------------

    def _find(self, pattern: object) -> int | None:
        inbox = self._process.inbox
        return next((i for i, m in enumerate(inbox) if accepts(pattern, m)), None)

    def _remove(self, place: int) -> object:
        message = self._process.inbox.pop(place)
        self._taken.append(message)
        if isinstance(message, From):
            # It fails with the probe, as one that waits does.
            message.set_aside()
        return message

    async def _take(self, pattern: object, timeout_s: float) -> object:
        await self._wait(lambda: self._find(pattern) is not None, timeout_s)
        place = self._find(pattern)
        return _NOTHING if place is None else self._remove(place)

    async def _wait(self, is_there: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until it is there; return whether it is."""
        self._check_alive()
        if is_there():
            return True
        if standing_clock() is not None:
            await settle()
        else:
            with trio.move_on_after(timeout_s):
                await self._watch(is_there)
        if not is_there():
            self._check_alive()
        return is_there()

    async def _watch(self, is_there: Callable[[], bool]) -> None:
        process = self._process
        spot = ParkSpot()
        process.waiters.append(spot)
        task = trio.lowlevel.current_task()
        try:
            while self.alive and not is_there():
                process.idle = True
                await spot.park(task)
        finally:
            process.waiters.remove(spot)
            process.idle = bool(process.waiters)
            spot.close()

    def _missed(self, what: str, timeout_s: float) -> ExpectationError:
        when = f"within {timeout_s} s"
        if standing_clock() is not None:
            when = "until all tasks were blocked (only the test moves the clock)"
        return ExpectationError(
            f"{self.pid!r} expected {what} {when}"
            f"{listed('waiting', self.messages)}"
            f"{listed('taken before', self.taken[-3:])}"
        )


def _of(kind: type[T], pid: Pid | None, reason: object) -> Pattern[T]:
    return like(kind, pid=pid, reason=reason)
