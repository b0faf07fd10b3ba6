"""What a process runs, and who is told of its end.

The seam between the process layer and the behaviours of ``atomr.otp``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

import attrs

from atomr.core.child_spec import ChildKind, ChildSpec, ShutdownTime
from atomr.core.exits import ExitReason
from atomr.core.messages import Exit

if TYPE_CHECKING:
    from atomr.process.node import Node
    from atomr.process.process import Process
    from atomr.process.task_process import TaskProcess
    from atomr.refs import Pid


@attrs.frozen
class StopRequest:
    """The signal that asks for an orderly end.

    Attributes:
        reason: to end with.
    """

    reason: ExitReason


@attrs.frozen
class CrashRequest:
    """The signal that makes a process without a task crash.

    Attributes:
        error: what its code is to raise.
    """

    error: BaseException


class Startable(ABC):
    """What a child specification's ``start`` returns: something to run.

    GenServer, the supervisors and PlainProcess are the subclasses; the methods
    are between them and the process layer.
    """

    child_kind: ClassVar[ChildKind] = ChildKind.WORKER
    reports_crashes: ClassVar[bool] = True
    reads_signals_in_init: ClassVar[bool] = False
    answers_system_messages: ClassVar[bool] = False
    never_waits: ClassVar[bool] = False
    """Whether its process has no task, as ``make_process`` returns it."""
    callers: tuple[Pid, ...] = ()
    """Who asked for this process, nearest first; only tasks know."""

    # A user's own names are free: none of them begins so.
    _atomr_started: bool = False

    def make_process(
        self, node: Node, *, label: str, parent: Parent, shutdown: ShutdownTime
    ) -> Process:
        """Return the process to run in: one with a task, unless overridden."""
        return node.task_process(self, label=label, parent=parent, shutdown=shutdown)

    def starts_without_task(self) -> bool:
        """Whether nothing in its start can wait, though it has a task later."""
        return False

    def init_without_task(self, process: TaskProcess) -> bool:
        """Run the start's one step; return whether to go on."""
        raise NotImplementedError(f"{self.process_label()} starts with a task")

    @abstractmethod
    async def run_process(self, process: TaskProcess) -> ExitReason:
        """Run to the end; call ``process.started()`` when ``init`` is done."""

    def stops_gracefully(self, process: Process) -> bool:
        """Whether an orderly stop is asked for; otherwise it is cancelled."""
        return process.trapping

    def answers_stop(self, process: Process) -> bool:
        """Whether :meth:`ask_to_stop` would be heard."""
        return self.stops_gracefully(process)

    def ask_to_stop(self, process: Process, reason: ExitReason) -> None:
        """Ask for an orderly end; only when :meth:`answers_stop`.

        Code with a mailbox of its own finds the supervisor's exit signal there.
        """
        process.deliver(Exit(process.parent.own_pid(), reason))

    def start_child_now(self, process: Process, spec: ChildSpec) -> Pid | None:
        """Start a child on the caller's stack, if nothing can wait; None: not so."""
        return None

    def terminate_child_now(self, process: Process, child: str | Pid) -> bool:
        """Stop a child on the caller's stack; return whether it could be done."""
        return False

    def process_label(self) -> str:
        """Return what to call a process that was given no id."""
        return type(self).__name__

    def behaviour_name(self) -> str:
        """Return the name of the class that the user wrote, for whoever looks."""
        return type(self).__name__.lstrip("_")

    def crash_state(self) -> object:
        """Return the state to show in a crash report; None: there is none."""
        return None

    def crash_details(self) -> tuple[str, ...]:
        """Return lines for a crash report beside state and message; must not raise."""
        return ()

    def system_state(self) -> object:
        """Return the state for ``sys.get_state``."""
        raise NotImplementedError(f"{self.process_label()} has no state to show")

    def replace_system_state(self, process: Process, state: object) -> None:
        """Put another state in the place of the one that is."""
        raise TypeError(f"the state of a {self.process_label()} cannot be replaced")


S = TypeVar("S", bound=Startable)


def take_once(behaviour: Startable) -> None:
    """Note that an instance is started; it can be once.

    Raises:
        ValueError: it was before, so its state is not that of a fresh one.
    """
    if behaviour._atomr_started:  # noqa: SLF001 - hidden from users, not from us
        problem = "this instance runs already, or has run"
        raise ValueError(f"{problem}: make a fresh one at each start")
    # An attrs class may be frozen.
    object.__setattr__(behaviour, "_atomr_started", True)


def state_of(behaviour: Startable) -> dict[str, object]:
    """Return the attributes that the user's code has set."""
    state = {}
    for kind in reversed(type(behaviour).__mro__):
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(behaviour, name):
                state[name] = getattr(behaviour, name)
    state |= vars(behaviour)
    state.pop("_atomr_started", None)
    return state


def copy_of(behaviour: S) -> S:
    """Return a shallow copy, which has not been started."""
    made = copy(behaviour)
    vars(made).pop("_atomr_started", None)
    return made


class Parent(Protocol):
    """Who is told of a started process' end: a supervisor or the node."""

    def child_exited(self, process: Process, reason: ExitReason) -> None:
        """Take note; must neither block nor raise."""

    def own_pid(self) -> Pid | None:
        """Return the supervisor's pid; None for the node."""


class AttachPoint(ABC):
    """A supervisor that takes attached children.

    A base class, not a protocol: this is asked for each request, and a check
    against a protocol costs more than all the rest of an attached block.
    """

    @abstractmethod
    def check_room(self, child: str) -> None:
        """Raise StartError when it cannot take another child."""

    @abstractmethod
    def attach(self, process: Process) -> None:
        """Take the process as a temporary child."""

    @abstractmethod
    def child_exited(self, process: Process, reason: ExitReason) -> None:
        """Take note of a child's end."""

    @abstractmethod
    def own_pid(self) -> Pid | None:
        """Return the supervisor's pid."""
