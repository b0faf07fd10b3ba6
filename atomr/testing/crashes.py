"""Who crashed during a test, and which of it the test expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from atomr.errors import ServerDownError, TaskExitError, short
from atomr.refs import Pid
from atomr.testing.clocks import settle, standing_clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from atomr.core.exits import ExitReason
    from atomr.process.process import Process
    from atomr.testing.faults import Fault

E = TypeVar("E", bound=BaseException)


class UnexpectedCrashError(AssertionError):
    """A process crashed, and the test had not said that it would.

    The crash itself is the ``__cause__``, with its traceback.

    Attributes:
        pid: the process.
        reason: what its code raised.
    """

    def __init__(self, pid: Pid, reason: BaseException) -> None:
        self.pid = pid
        self.reason = reason
        super().__init__(f"{pid!r} crashed: {short(reason)}")
        self.__cause__ = reason


class NoCrashError(AssertionError):
    """A crash that the test expected did not come."""


@attrs.frozen
class Crash:
    """One crash.

    Attributes:
        pid: the process.
        names: the names that it had.
        reason: what its code raised.
    """

    pid: Pid
    names: frozenset[str]
    reason: BaseException

    def is_of(self, target: Pid | str | None) -> bool:
        """Return whether it is the crash of that process."""
        if isinstance(target, str):
            return target in self.names or target == self.pid.label
        return target is None or target is self.pid

    def __str__(self) -> str:
        return f"{self.pid!r}: {short(self.reason)}"


class CrashLog:
    """Takes note of each crash on one node.

    Attributes:
        unexpected: crashes that nobody expected, in order.
        faults: what ``crash_next`` prepared.
    """

    def __init__(self, fail: Callable[[], object]) -> None:
        self.unexpected: list[Crash] = []
        self.faults: list[Fault] = []
        self._fail = fail
        self._expectations: list[ExpectedCrash[BaseException]] = []
        self._injected: list[BaseException] = []

    def note(self, process: Process, reason: ExitReason) -> None:
        """Take note of a crash; called by the node."""
        assert isinstance(reason, BaseException), "that is what a crash is"
        crash = Crash(process.pid, frozenset(process.names or ()), reason)
        if any(reason is error for error in self._injected):
            # The test did it; an expectation may still want to hear of it.
            self._tell(crash)
        elif not self._tell(crash):
            self.unexpected.append(crash)
            self._fail()

    def _tell(self, crash: Crash) -> bool:
        return any(expected.take(crash) for expected in reversed(self._expectations))

    def injected(self, error: BaseException) -> None:
        """Take note of an error that the test raises in a process."""
        self._injected.append(error)

    def add(self, expected: ExpectedCrash[BaseException]) -> None:
        """Tell that one of crashes too."""
        self._expectations.append(expected)

    def remove(self, expected: ExpectedCrash[BaseException]) -> None:
        """Undo :meth:`add`."""
        self._expectations.remove(expected)


class ExpectedCrash(Generic[E]):
    """A block in which a process is to crash; see ``TestNode.expect_crash``."""

    def __init__(
        self,
        log: CrashLog,
        target: Pid | str | None,
        error: type[E],
        *,
        timeout_s: float,
    ) -> None:
        self._log = log
        self._target = target
        self._error = error
        self._timeout_s = timeout_s
        self._crash: Crash | None = None
        self._others: list[Crash] = []
        self._came = trio.Event()

    @property
    def reason(self) -> E:
        """What the process raised.

        Raises:
            NoCrashError: it has not crashed yet.
        """
        if self._crash is None:
            raise NoCrashError(self._problem())
        reason: E = self._crash.reason  # type: ignore[assignment]
        return reason

    @property
    def pid(self) -> Pid:
        """Which process crashed.

        Raises:
            NoCrashError: none has crashed yet.
        """
        if self._crash is None:
            raise NoCrashError(self._problem())
        return self._crash.pid

    def take(self, crash: Crash) -> bool:
        """Return whether this is the crash that was expected."""
        if not crash.is_of(self._target) or not isinstance(crash.reason, self._error):
            self._others.append(crash)
            return False
        if self._crash is not None:
            self._others.append(crash)
            return False
        self._crash = crash
        self._came.set()
        return True

    async def __aenter__(self) -> ExpectedCrash[E]:
        self._log.add(self)  # type: ignore[arg-type]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        __tracebackhide__ = True
        try:
            if error is None:
                await self._wait()
        finally:
            self._log.remove(self)  # type: ignore[arg-type]
        if error is not None:
            # How the caller hears of the crash; like pytest.raises.
            crash = self._crash
            return (
                crash is not None
                and isinstance(error, (ServerDownError, TaskExitError))
                and error.reason is crash.reason
            )
        if self._crash is None:
            raise NoCrashError(self._problem())
        return False

    async def _wait(self) -> None:
        if standing_clock() is not None:
            await settle()
            return
        with trio.move_on_after(self._timeout_s):
            await self._came.wait()

    def _problem(self) -> str:
        who = "any process" if self._target is None else repr(self._target)
        seen = "; ".join(map(str, self._others)) or "nothing crashed"
        return f"expected {who} to crash with {self._error.__name__}: {seen}"
