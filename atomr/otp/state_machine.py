"""StateMachine: a process whose answer to an event depends on its state.

::

    class Switch(StateMachine):
        def __init__(self) -> None:
            self.flips = 0

        def init(self) -> Next:
            return Next(self.off)

        def off(self, event: StateEvent) -> StateResult:
            match event:
                case Cast("flip"):
                    self.flips += 1
                    return Next(self.on, StateTimeout.after(60.0))
            return None

        def on(self, event: StateEvent) -> StateResult:
            match event:
                case Cast("flip") | StateTimeout():
                    return Next(self.off)
            return None

The instance is the *data*, as in a GenServer; the *state* is beside it, and
says what may happen.  States are methods of the machine, each of which gets the
events that come while it is the state; or any values that can be compared, with
one ``handle_event``.  A state may be ``def`` or ``async def``; if no method is
``async def``, the machine has no task.

When to use one: there are states that take the same event differently; an event
has to wait for another state; something is to happen after a time in a state.
When not: a GenServer is simpler, and a call to it costs half.

Source: OTP ``gen_statem``.
"""

from __future__ import annotations

from inspect import getattr_static, iscoroutinefunction
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

from atomr.core.checks import warn_of_misspelt
from atomr.otp.gen_server import check_hibernation
from atomr.otp.state_server import MachineServer
from atomr.otp.state_server_async import AsyncMachineServer
from atomr.process.behaviour import Startable, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from atomr.core.child_spec import ShutdownTime
    from atomr.core.exits import ExitReason
    from atomr.otp.state_results import StateInitResult, StateResult
    from atomr.process.behaviour import Parent
    from atomr.process.node import Node
    from atomr.process.process import Process
    from atomr.process.task_process import TaskProcess


_CALLBACKS = ("init", "handle_event", "terminate", "format_status")


class StateMachine(Startable):
    """Base of state machines; ``class Door(StateMachine, enter=True)``.

    Args of the class statement:
        enter: call each state with ``Enter`` when the machine enters it.
    """

    hibernate_after_s: ClassVar[float | None] = None
    """As of a :class:`~atomr.otp.GenServer`."""

    answers_system_messages: ClassVar[bool] = True
    enter_calls: ClassVar[bool] = False
    has_terminate: ClassVar[bool] = False
    may_wait: ClassVar[bool] = False
    states_are_methods: ClassVar[bool] = True

    def __init_subclass__(cls, *, enter: bool | None = None, **kwargs: object) -> None:
        """See once how the machine is written."""
        super().__init_subclass__(**kwargs)
        check_hibernation(cls, cls.hibernate_after_s)
        warn_of_misspelt(cls, StateMachine, _CALLBACKS)
        if enter is not None:
            cls.enter_calls = enter
        cls.has_terminate = cls.terminate is not StateMachine.terminate
        cls.states_are_methods = cls.handle_event is StateMachine.handle_event
        cls.may_wait = any(_waits(cls, name) for name in dir(cls))
        cls.never_waits = (
            not cls.may_wait and cls.make_process is StateMachine.make_process
        )

    # --- callbacks ------------------------------------------------------------

    def init(self) -> StateInitResult | Awaitable[StateInitResult]:
        """Prepare, and say which state is the first; the starter waits for it.

        Returns:
            ``Next(state, *actions)``: begin there; the actions, and ``Enter``
            if that is on, come after the starter has gone on.  ``Ignore()``:
            there is nothing to do.  ``Stop(reason)``: fail.

        An exception fails the start as well; ``terminate`` does not run.
        """
        raise NotImplementedError(f"{type(self).__name__} has no init")

    def handle_event(
        self,
        event: Any,  # noqa: ANN401 - a StateEvent, or what the subclass narrows it to
        state: Any,  # noqa: ANN401 - the subclass' own
    ) -> StateResult | Awaitable[StateResult]:
        """Handle an event in any state; overriding it makes states plain values.

        Args:
            event: what happened, or ``Enter``.
            state: the state that the machine is in, or enters.

        Returns:
            As a state that is a method: see :mod:`atomr.otp.state_results`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no handle_event")

    def terminate(
        self,
        reason: ExitReason,
        state: Any,  # noqa: ANN401 - the subclass' own
    ) -> Awaitable[None] | None:
        """Clean up before the end, in whatever state.

        Runs when, and is bounded as, :meth:`atomr.otp.GenServer.terminate`.
        """
        return None

    def format_status(self, state: object) -> object:
        """Return what crash reports and ``sys.get_status`` show.

        Override it to hide secrets, or to shorten.

        Args:
            state: the state; of one that is a method, its name.
        """
        return state, state_of(self)

    # --- for the process layer ------------------------------------------------

    def make_process(
        self, node: Node, *, label: str, parent: Parent, shutdown: ShutdownTime
    ) -> Process:
        """Return the process to run in: one without a task if nothing can wait."""
        if self.may_wait:
            return super().make_process(
                node, label=label, parent=parent, shutdown=shutdown
            )
        return MachineServer(self).make_process(
            node, label=label, parent=parent, shutdown=shutdown
        )

    def run_process(self, process: TaskProcess) -> Coroutine[Any, Any, ExitReason]:
        """Let a server take this instance's place, and serve until the end."""
        server = AsyncMachineServer(self)
        process.replace_behaviour(server)
        return server.run_process(process)


def _waits(cls: type[StateMachine], name: str) -> bool:
    found = getattr_static(cls, name)
    # Class and static methods are for callers of the machine.
    return (
        isinstance(found, FunctionType)
        and found is not getattr_static(StateMachine, name, None)
        and iscoroutinefunction(found)
    )
