"""GenServer: a process that serves requests one at a time.

::

    @attrs.frozen
    class Add(Request[int]):
        amount: int

    class Counter(GenServer):
        def __init__(self) -> None:
            self.total = 0

        def handle_call(self, request: Add, from_: From) -> Reply:
            self.total += request.amount
            return Reply(self.total)

    async with open_node() as node:
        counter = await node.start(Counter())
        assert await call(counter, Add(2)) == 2

The instance *is* the state.  A restart makes a new one, by the child
specification's ``start``; nothing of the old one is kept.

Each callback may be ``def`` or ``async def``; which one is seen once per class.
While a callback runs, no other does: state needs no lock.  A callback that
waits makes all callers wait; a callback that neither waits nor returns stops
the whole node, as nothing in Python can preempt it.

When not to use one: a process models concurrency, state over time, or failure.
A function needs no process.

Source: OTP ``gen_server``; Elixir ``GenServer``.
"""

from __future__ import annotations

import logging
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, ClassVar

from atomr.core.checks import warn_of_misspelt
from atomr.errors import short
from atomr.otp.lean_server import LeanServer
from atomr.otp.results import CallResult, CastResult, InitResult, NoReply
from atomr.otp.server_loop import ServerLoop
from atomr.process.behaviour import Startable, StopRequest, copy_of, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from atomr.core.child_spec import ShutdownTime
    from atomr.core.exits import ExitReason
    from atomr.process.behaviour import Parent
    from atomr.process.calls import From
    from atomr.process.node import Node
    from atomr.process.process import Process
    from atomr.process.task_process import TaskProcess

_log = logging.getLogger("atomr")

_CALLBACKS = (
    "init",
    "handle_call",
    "handle_cast",
    "handle_info",
    "handle_continue",
    "terminate",
)


class GenServer(Startable):
    """Base of servers; override what is needed.

    The callbacks' argument types are ``Any`` so that a subclass may narrow them
    to its own messages.
    """

    hibernate_after_s: ClassVar[float | None] = None
    """Put the task away after so many seconds, more than 0, without a message.

    None: never.  It happens between once and twice that time.  The first message
    afterwards costs the start of a task.  A server without ``async def`` has no
    task.
    """

    answers_system_messages: ClassVar[bool] = True
    async_callbacks: ClassVar[frozenset[str]] = frozenset()
    has_init: ClassVar[bool] = False
    has_terminate: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: object) -> None:
        """See once which callbacks are ``async def``; warn of one that is misspelt."""
        super().__init_subclass__(**kwargs)
        check_hibernation(cls, cls.hibernate_after_s)
        warn_of_misspelt(cls, GenServer, (*_CALLBACKS, "format_status"))
        cls.async_callbacks = frozenset(
            name for name in _CALLBACKS if iscoroutinefunction(getattr(cls, name))
        )
        cls.never_waits = (
            not cls.async_callbacks and cls.make_process is GenServer.make_process
        )
        cls.has_init = cls.init is not GenServer.init
        cls.has_terminate = cls.terminate is not GenServer.terminate

    # --- callbacks ------------------------------------------------------------

    def init(self) -> InitResult | Awaitable[InitResult]:
        """Prepare to serve; the starter waits for it.

        Returns:
            ``Ok()`` or None: serve.  ``Ok(continue_=x)``: run
            ``handle_continue(x)`` first, without making the starter wait.
            ``Ignore()``: there is nothing to do.  ``Stop(reason)``: fail.

        An exception fails the start as well; ``terminate`` does not run.
        """
        return None

    def handle_call(
        self,
        request: Any,  # noqa: ANN401 - see the class
        from_: From,
    ) -> CallResult | Awaitable[CallResult]:
        """Serve a ``call``.

        Args:
            request: what the caller sent.
            from_: where to reply, now or later.

        Returns:
            ``Reply(value)``; ``Fail(error)``: raise in the caller;
            ``NoReply()``: ``from_.reply(value)`` was or will be called, by
            whoever has ``from_``; ``Stop(reason, reply=value)``.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no handle_call; it got {short(request)}"
        )

    def handle_cast(
        self,
        message: Any,  # noqa: ANN401 - see the class
    ) -> CastResult | Awaitable[CastResult]:
        """Serve a ``cast``; None means ``NoReply()``."""
        raise NotImplementedError(
            f"{type(self).__name__} has no handle_cast; it got {short(message)}"
        )

    def handle_info(
        self,
        message: Any,  # noqa: ANN401 - see the class
    ) -> CastResult | Awaitable[CastResult]:
        """Serve any other message: sent, ``Down``, ``Exit``, ``IdleTimeout``.

        The default logs it as unexpected.
        """
        _log.warning(
            "%s %s got an unexpected message: %s",
            type(self).__module__,
            type(self).__name__,
            short(message),
        )
        return NoReply()

    def handle_continue(
        self,
        continuation: Any,  # noqa: ANN401 - see the class
    ) -> CastResult | Awaitable[CastResult]:
        """Go on after ``init`` or another callback, before the next message."""
        raise NotImplementedError(
            f"{type(self).__name__} has no handle_continue; it got"
            f" {short(continuation)}"
        )

    def terminate(self, reason: ExitReason) -> Awaitable[None] | None:
        """Clean up before the end.

        Runs when a callback returned ``Stop`` or raised, when the supervisor
        or ``stop`` asked for the end, when the supervisor's exit signal was
        trapped, and when an enclosing scope was cancelled.  It is shielded
        from cancellation, and bounded by the child's shutdown time; past that
        it is cancelled.  It does *not* run after a kill (``BRUTAL_KILL``, a
        shutdown time that ran out), nor when an exit signal or a link ends a
        process that does not trap exits, nor when ``init`` failed.  What must
        be released in each case belongs into a ``with`` or ``finally``.

        An exception raised here becomes the exit reason.
        """
        return None

    def format_status(self) -> object:
        """Return the state for crash reports; override to hide secrets."""
        return state_of(self)

    # --- for the process layer ------------------------------------------------

    def make_process(
        self, node: Node, *, label: str, parent: Parent, shutdown: ShutdownTime
    ) -> Process:
        """Return the process to run in: one without a task if nothing can wait."""
        if self.async_callbacks:
            return node.task_process(
                self, label=label, parent=parent, shutdown=shutdown
            )
        return LeanServer(node, self, label=label, parent=parent, shutdown=shutdown)

    def starts_without_task(self) -> bool:
        """Whether ``init`` is a plain function."""
        return "init" not in self.async_callbacks

    def init_without_task(self, process: TaskProcess) -> bool:
        """Run ``init``."""
        if not self.has_init:
            return True
        loop = ServerLoop(process)
        serves = loop.init_now()
        if loop.has_more_to_do:
            process.unfinished = loop
        return serves

    def run_process(self, process: TaskProcess) -> Coroutine[Any, Any, ExitReason]:
        """Serve until the end."""
        # Not async: one frame less for as long as it runs.
        loop, process.unfinished = process.unfinished, None
        if not isinstance(loop, ServerLoop):
            loop = ServerLoop(process)
        return loop.run()

    def stops_gracefully(self, process: Process) -> bool:
        """Whether there is something to do before the end."""
        return process.trapping or self.has_terminate

    def answers_stop(self, process: Process) -> bool:
        """Whether it reads stop requests: always, between two messages."""
        return True

    def ask_to_stop(self, process: Process, reason: ExitReason) -> None:
        """Let the loop stop after the message in work."""
        process.push_signal(StopRequest(reason))

    def crash_state(self) -> object:
        """Return what ``format_status`` shows."""
        return self.format_status()

    def system_state(self) -> object:
        """Return a shallow copy of the instance: it is the state."""
        return copy_of(self)

    def replace_system_state(self, process: Process, state: object) -> None:
        """Let another instance of the class serve from now on."""
        if type(state) is not type(self):
            expected = f"expected a {type(self).__name__}, not a {type(state).__name__}"
            raise TypeError(f"replace_state: {expected}")
        process.replace_behaviour(state)


def check_hibernation(cls: type[object], after_s: float | None) -> None:
    """Check the ``hibernate_after_s`` of a class.

    Raises:
        ValueError: it is no time.  After 0 s, the look at whether it is idle
            would never come to an end of what is due.
    """
    if after_s is not None and not after_s > 0:
        expected = "expected seconds, more than 0, or None"
        raise ValueError(f"{cls.__name__}.hibernate_after_s={after_s!r}: {expected}")
