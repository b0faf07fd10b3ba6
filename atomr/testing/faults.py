"""Crashes on demand: now, at a message, or at random.

A crash is as the code's own: the reason is the very error, ``terminate`` runs,
callers, links, monitors and the supervisor are told.  A test node does not take
it for an unexpected one.

For a process with a task the error travels in its cancel scope: its ``finally``
blocks run, and no ``except`` of its own can stop it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.core.child_spec import ChildKind
from atomr.errors import AtomrError, NotAProcessError
from atomr.otp import TreeNode, supervision_tree
from atomr.process import PlainProcess
from atomr.process.context import find_process
from atomr.process.lean import LeanProcess
from atomr.process.system import Debug
from atomr.process.task_process import TaskProcess
from atomr.refs import Address, Pid
from atomr.testing.crashes import CrashLog
from atomr.testing.expecting import content_of
from atomr.testing.matching import ANYTHING, accepts, describe
from atomr.testing.probe_process import ProbeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr.process.process import Process


class InjectedCrashError(AtomrError):
    """A crash that a test made."""


def crash(target: Address, error: BaseException | None = None) -> BaseException:
    """Make a live process crash, as if its code had raised ``error``.

    A process with a task crashes at its next checkpoint, wherever that is; a
    GenServer without one before its next message.  Returns before that.

    Args:
        target: pid or name; no supervisor.
        error: the reason; None: an :class:`InjectedCrashError`.

    Returns:
        The error.

    Raises:
        NotAProcessError: nothing lives there.
        TypeError: it is a supervisor: crash its children.
    """
    process = _victim("crash", target)
    reason = InjectedCrashError(f"crash({target!r})") if error is None else error
    _expect(process, reason)
    process.inject(reason)
    return reason


@attrs.define
class Fault:
    """A crash that waits for its message; see :func:`crash_next`.

    Attributes:
        error: what the process will raise.
        fired: whether it did.
    """

    error: BaseException
    fired: bool = False
    _target: Address = ""
    _pattern: object = ANYTHING
    _left: int = 0
    _undo: Callable[[Fault], object] | None = None

    def __str__(self) -> str:
        return f"crash_next({self._target!r}, on={describe(self._pattern)})"

    @property
    def waits(self) -> bool:
        """Whether it neither struck nor was taken back."""
        return self._undo is not None and not self.fired

    def strike(self, message: object) -> None:
        """Raise, if it is the message that was waited for."""
        if not accepts(self._pattern, content_of(message)):
            return
        if self._left > 0:
            self._left -= 1
            return
        self.fired = True
        raise self.error

    def cancel(self) -> bool:
        """Let nothing happen; return whether it was still to come."""
        waited = self.waits
        undo, self._undo = self._undo, None
        if undo is not None:
            undo(self)
        return waited


@attrs.define
class _FaultyDebug(Debug):
    faults: list[Fault] = attrs.field(factory=list)

    @property
    def needed(self) -> bool:
        return bool(self.faults) or super().needed

    def began(self, process: Process, message: object) -> None:
        super().began(process, message)
        for fault in self.faults:
            fault.strike(message)


def crash_next(
    target: Address,
    on: object = ANYTHING,
    *,
    error: BaseException | None = None,
    after: int = 0,
) -> Fault:
    """Make a process crash while it handles the next message that matches.

    As if the callback had raised: a caller gets ``ServerDownError``, and the
    crash report shows the message.  A test node whose test is over without that
    message raises ``NoCrashError``: what was to be tested did not happen.

    Args:
        target: pid or name of what handles one message after the other, as a
            GenServer does; no plain process, and no supervisor.
        on: pattern for the request of a call, the message of a cast, or what
            was sent; see :mod:`atomr.testing.matching`.
        error: the reason; None: an :class:`InjectedCrashError`.
        after: so many matches are handled as usual before.

    Raises:
        NotAProcessError: nothing lives there.
        TypeError: it is no such process.
    """
    process = _victim("crash_next", target)
    if not process.behaviour.answers_system_messages:
        label = process.behaviour.process_label()
        raise TypeError(f"crash_next({target!r}): a {label} handles no messages")
    reason = InjectedCrashError(f"crash_next({target!r})") if error is None else error
    _expect(process, reason)
    debug = _faulty(process)

    def undo(fault: Fault) -> None:
        debug.faults.remove(fault)
        if process.debug is debug and not debug.needed:
            process.debug = None

    fault = Fault(reason, target=target, pattern=on, left=after, undo=undo)
    debug.faults.append(fault)
    watch = _watch(process)
    if watch is not None:
        watch.faults.append(fault)
    return fault


def _faulty(process: Process) -> _FaultyDebug:
    debug = process.debug
    if isinstance(debug, _FaultyDebug):
        return debug
    made = _FaultyDebug()
    if debug is not None:
        for field in attrs.fields(Debug):
            setattr(made, field.name, getattr(debug, field.name))
    process.debug = made
    return made


def _victim(
    operation: str, target: Address
) -> TaskProcess | LeanProcess | ProbeProcess:
    process = find_process(target)
    if process is None:
        raise NotAProcessError(f"{operation}({target!r}): no such process")
    if process.behaviour.child_kind is ChildKind.SUPERVISOR:
        raise TypeError(f"{operation}({target!r}): a supervisor; crash its children")
    assert isinstance(process, (TaskProcess, LeanProcess, ProbeProcess)), "all kinds"
    return process


def _expect(process: Process, error: BaseException) -> None:
    watch = _watch(process)
    if watch is not None:
        watch.injected(error)


def _watch(process: Process) -> CrashLog | None:
    watch = getattr(process.node.on_crash, "__self__", None)
    return watch if isinstance(watch, CrashLog) else None


# --- at random ------------------------------------------------------------------------


@attrs.frozen
class Strike:
    """One crash that :class:`Chaos` made.

    Attributes:
        at_s: seconds since it began.
        id: the child that it made crash.
        pid: its process then.
    """

    at_s: float
    id: str
    pid: Pid


class Chaos(PlainProcess):
    """A process that crashes random workers of a tree.

    ::

        chaos = Chaos("shop", seed=7, every_s=0.5)
        await node.start_supervised(chaos)
        await advance(60)
        await node.stop_supervised("Chaos")
        print(len(chaos.strikes))

    The same seed strikes the same children at the same times, as far as the
    tree is the same then: run it in virtual time.

    Args:
        top: pid or name of the supervisor at the top; only workers are struck.
        seed: of the times and the choices.
        every_s: mean seconds between two strikes; the times are random.
        spare: ids that are left alone.
        error: makes the reason of a strike.

    One whose supervisor is not there when it begins crashes itself.

    Attributes:
        strikes: what it did so far.
    """

    def __init__(
        self,
        top: Address,
        *,
        seed: int,
        every_s: float = 1.0,
        spare: frozenset[str] | set[str] = frozenset(),
        error: Callable[[], BaseException] | None = None,
    ) -> None:
        super().__init__(self._strike_for_ever)
        self.strikes: list[Strike] = []
        self._top = top
        self._draw = random.Random(seed)
        self._every_s = every_s
        self._spare = frozenset(spare)
        self._error = error

    def process_label(self) -> str:
        """Return the class' name."""
        return "Chaos"

    async def _strike_for_ever(self) -> None:
        began_at = trio.current_time()
        if find_process(self._top) is None:
            raise NotAProcessError(f"Chaos({self._top!r}): no such supervisor")
        while True:
            await trio.sleep(self._draw.expovariate(1 / self._every_s))
            tree = supervision_tree(self._top)
            workers = [] if tree is None else list(self._workers(tree))
            if workers:
                id_, pid = self._draw.choice(workers)
                crash(pid, self._error() if self._error is not None else None)
                self.strikes.append(Strike(trio.current_time() - began_at, id_, pid))

    def _workers(self, tree: TreeNode) -> Iterator[tuple[str, Pid]]:
        for below in tree.children:
            if below.kind is ChildKind.SUPERVISOR:
                yield from self._workers(below)
            elif below.pid is not None and below.id not in self._spare:
                yield below.id, below.pid
