"""A GenServer none of whose callbacks is ``async def``: a process without a task."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

from trio.lowlevel import disable_ki_protection, enable_ki_protection

from atomr.core.child_spec import DEFAULT_SHUTDOWN_S, ShutdownTime
from atomr.core.exits import SHUTDOWN, ExitReason
from atomr.core.messages import Exit
from atomr.otp.results import ABSENT, Reply, Stop
from atomr.otp.server_results import ServerResults, ordered_end
from atomr.process.behaviour import CrashRequest, StopRequest
from atomr.process.calls import CAST, Cast, From, item_seen
from atomr.process.inline import without_caller
from atomr.process.lean import TURN_MESSAGES, LeanProcess
from atomr.process.system import serve_system

if TYPE_CHECKING:
    from atomr.otp.gen_server import GenServer
    from atomr.process.behaviour import Parent
    from atomr.process.node import Node
    from atomr.process.process import Process
    from atomr.process.timers import Timer


class LeanServer(LeanProcess, ServerResults):
    """Runs one GenServer on the stack of whoever has it run."""

    __slots__ = ("_stop", "continuation", "idle_timer")

    behaviour: GenServer
    opens_casts = True

    def __init__(
        self,
        node: Node,
        server: GenServer,
        *,
        label: str,
        parent: Parent,
        shutdown: ShutdownTime = DEFAULT_SHUTDOWN_S,
    ) -> None:
        super().__init__(node, server, label=label, parent=parent, shutdown=shutdown)
        self.context = copy_context()
        self.entered = False
        self.continuation: object = ABSENT
        self.idle_timer: Timer | None = None
        self._stop: Stop | None = None

    def own_process(self) -> Process:
        """Return itself."""
        return self

    # An interrupt half-way would leave a process that nobody can wake or stop.
    @enable_ki_protection
    def run_init(self) -> None:
        """Run ``init`` to its end."""
        server = self.behaviour
        serving, failure = True, None
        if server.has_init:
            try:
                serving = self.own_context().run(self._init)
            except BaseException as error:  # noqa: BLE001 - the reason, see broken
                failure = error
        if failure is not None:
            self.broken(failure, may_clean_up=False)
        elif self.kill_reason is not None:
            self.finish(self.kill_reason)
        elif not serving:
            self.finish(SHUTDOWN)
        else:
            self.started()
            self._rest()

    # User code can be interrupted, as anywhere; so it is in what follows.
    @disable_ki_protection
    def _init(self) -> bool:
        return self.init_result(self.behaviour.init())

    # --- messages ------------------------------------------------------------------

    @enable_ki_protection
    def call_now(self, ref: From) -> None:
        """Serve a call on the caller's stack; only while ``idle``."""
        if self.debug is not None:
            self.deliver(ref)
            return
        self.idle = False
        self.current = ref
        if self.idle_timer is not None:
            self.cancel_idle()
        failure = None
        try:
            context = self.context if self.entered else self.own_context()
            stop = self._stop = context.run(self._serve, ref)
            if stop is None:
                self.current = None
        except BaseException as error:  # noqa: BLE001 - the reason, see broken
            failure = error
        self._settle(failure)

    @disable_ki_protection
    def _serve(self, ref: From) -> Stop | None:
        result = self.behaviour.handle_call(ref.request, ref)
        if type(result) is Reply and result.plain:
            # The common case, with nothing else to look at.
            ref.reply(result.value)
            return None
        return self.answer(ref, result)

    @enable_ki_protection
    def turn(self) -> int:
        """Handle up to ``TURN_MESSAGES`` messages, signals first."""
        if self.reason is not None:
            return 1
        failure, done = None, 1
        try:
            if self.debug is not None:
                done = self.own_context().run(self._debugged)
            elif (
                len(self.inbox) == 1
                and not (self.batch or self.signals)
                and self.continuation is ABSENT
            ):
                # The common case: one message for a process that was idle.
                context = self.context if self.entered else self.own_context()
                self._stop = context.run(self._handle, self.inbox.pop())
            else:
                done = self.own_context().run(self._messages)
        except BaseException as error:  # noqa: BLE001 - the reason, see broken
            failure = error
        self._settle(failure)
        return done

    def _settle(self, failure: BaseException | None) -> None:
        """Act on how a callback ended."""
        if failure is not None:
            self.broken(without_caller(failure))
        elif self.kill_reason is not None:
            self.finish(self.kill_reason)
        elif self._stop is not None:
            self.end(self._stop.reason)
        elif (
            self.inbox
            or self.batch
            or self.signals
            or self.limit is not None
            or self.continuation is not ABSENT
        ):
            self._rest()
        else:
            self.idle = True

    @disable_ki_protection
    def _handle(self, item: object) -> Stop | None:
        self.current = item
        if self.idle_timer is not None:
            self.cancel_idle()
        stop, kind = None, type(item)
        if kind is tuple and item and item[0] is CAST:  # type: ignore[index]
            result = self.behaviour.handle_cast(item[1])  # type: ignore[index]
            if result is not None:
                stop = self.noted("handle_cast", result)
        elif type(item) is Cast:
            stop = self.noted("handle_cast", self.behaviour.handle_cast(item.message))
        elif type(item) is From:
            stop = self.answer(item, self.behaviour.handle_call(item.request, item))
        elif type(item) is Exit:
            stop = self._inform(item)
        else:
            result = self.behaviour.handle_info(item)
            if result is not None:
                stop = self.noted("handle_info", result)
        if stop is None:
            self.current = None
        return stop

    @disable_ki_protection
    def _messages(self) -> int:
        left = TURN_MESSAGES
        while left > 0 and not self._ends():
            if self.continuation is not ABSENT:
                left -= 1
                self._stop = self._continue()
            elif self.batch:
                left = self._drain(left)
            elif self.inbox:
                self.take_inbox()
            else:
                break
        return TURN_MESSAGES - left

    @disable_ki_protection
    def _debugged(self) -> int:
        """Do the same one by one, and tell of each."""
        for done in range(TURN_MESSAGES):
            if self._ends() or self.suspended:
                return done
            debug = self.debug
            if self.continuation is not ABSENT:
                self._stop = self._continue()
                continue
            if not self.batch:
                self.take_inbox()
            if not self.batch:
                return done
            item = self.current = item_seen(self.batch.pop())
            if debug is not None:
                debug.began(self, item)
            self._stop = self._handle(item)
            if debug is not None:
                debug.ended(self, item, self._stop)
        return TURN_MESSAGES

    def _ends(self) -> bool:
        """Look at the signals; return whether one of them ends the process."""
        while self.signals:
            signal = self.signals.pop(0)
            if isinstance(signal, StopRequest):
                self._stop = Stop(signal.reason)
            elif type(signal) is From:
                serve_system(self, signal)
            elif isinstance(signal, CrashRequest):
                raise signal.error
        return self._stop is not None or self.kill_reason is not None

    def _drain(self, left: int) -> int:
        """Handle messages until something else comes between; return ``left``."""
        batch, handle_cast = self.batch, self.behaviour.handle_cast
        while batch and left > 0:
            left -= 1
            item = batch.pop()
            if type(item) is tuple and item and item[0] is CAST:
                self.current = item
                if self.idle_timer is not None:
                    self.cancel_idle()
                result = handle_cast(item[1])
                if result is None:
                    # The common case, with nothing else to look at.
                    if self.signals:
                        break
                    continue
                self._stop = self.noted("handle_cast", result)
            else:
                self._stop = self._handle(item)
            if self._stop is not None:
                return left
            if self.signals or self.continuation is not ABSENT:
                break
        self.current = None
        return left

    def _continue(self) -> Stop | None:
        continuation, self.continuation = self.continuation, ABSENT
        result = self.behaviour.handle_continue(continuation)
        return self.noted("handle_continue", result)

    def _inform(self, message: object) -> Stop | None:
        reason = ordered_end(message, self)
        if reason is not None:
            return Stop(reason)
        return self.noted("handle_info", self.behaviour.handle_info(message))

    def _rest(self) -> None:
        if self.limit is not None:
            self.room_made()
        waits = self.inbox or self.batch or self.continuation is not ABSENT
        if self.signals or (waits and not self.suspended):
            self.node.drain.add(self)
        else:
            self.idle = True

    # --- the end ---------------------------------------------------------------------

    @disable_ki_protection
    def clean_up(self, reason: ExitReason) -> None:
        """Run ``terminate``, then send the reply that came with the stop."""
        try:
            if self.behaviour.has_terminate:
                self.behaviour.terminate(reason)
        finally:
            self.last_reply(self._stop)
