"""The loop of a GenServer: one message, one callback, one result.

System signals are looked at before each message.  Of 256 messages handled
without a wait, one makes a checkpoint, so that a full mailbox can hold up
neither other tasks nor a cancellation.

A loop that hibernates ends where it would go to sleep; another goes on from
there, in a new task, when something comes.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import disable_ki_protection

from atomr.core.child_spec import DEFAULT_SHUTDOWN_S, BrutalKill
from atomr.core.exits import KILLED, SHUTDOWN, ExitReason
from atomr.otp.results import ABSENT, InitResult, Reply, Stop
from atomr.otp.server_results import ServerResults, ordered_end
from atomr.process.behaviour import StopRequest
from atomr.process.calls import Cast, From
from atomr.process.endings import reason_of
from atomr.process.hibernation import HIBERNATE
from atomr.process.report import log
from atomr.process.system import serve_system

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from atomr.otp.gen_server import GenServer
    from atomr.process.process import Process
    from atomr.process.task_process import TaskProcess
    from atomr.process.timers import Timer


NUDGE = "a call served on its caller's stack left something to do"


class ServerLoop(ServerResults):
    """Runs one GenServer in one task."""

    __slots__ = (
        "_active",
        "_asked",
        "_async_continue",
        "_async_info",
        "_hibernates",
        "_idle_watch",
        "_plain_call",
        "_plain_cast",
        "_process",
        "_stop",
        "continuation",
        "idle_timer",
    )

    def __init__(self, process: TaskProcess) -> None:
        self._process = process
        self._asked = False
        self._stop: Stop | None = None
        self.continuation: object = ABSENT
        self.idle_timer: Timer | None = None
        self._hibernates = False
        self._active = False
        self._idle_watch: Timer | None = None
        asynchronous = self._server.async_callbacks
        self._plain_call = "handle_call" not in asynchronous
        self._plain_cast = "handle_cast" not in asynchronous
        self._async_info = "handle_info" in asynchronous
        self._async_continue = "handle_continue" in asynchronous

    async def run(self) -> ExitReason:
        """Run ``init``, serve, run ``terminate``; return the exit reason."""
        if self._process.was_started:
            # Back to hibernation, unless there is a message, or init left something.
            self._hibernates = not self.has_more_to_do
            self._offer_calls()
        elif not await self._init():
            return SHUTDOWN
        try:
            reason = await self._serve()
        except BaseException as error:
            # Killed, or signalled without trapping: no terminate, as in OTP.
            if self._process.kill_reason is None and self._may_terminate(error):
                await self._terminate(self._process.reason_for(error))
            raise
        if reason is HIBERNATE:
            return reason
        try:
            in_time = await self._terminate(reason)
        finally:
            if self._process.kill_reason is None:
                self.last_reply(self._stop)
        # Who was asked to stop and did not in its time counts as killed.
        killed = self._asked or self._process.kill_reason is KILLED
        return KILLED if killed and not in_time else reason

    def init_now(self) -> bool:
        """Run ``init``, a plain function, with no task; return whether to serve."""
        return self.init_result(self._server.init())

    @property
    def has_more_to_do(self) -> bool:
        """Whether what ``init`` returned needs the task at once."""
        return self.continuation is not ABSENT or self.idle_timer is not None

    async def _init(self) -> bool:
        result: InitResult = self._server.init()  # type: ignore[assignment]
        if "init" in self._server.async_callbacks:
            result = await result  # type: ignore[misc]
        if not self.init_result(result):
            return False
        if self._process.kill_reason is not None:
            # It ended itself, and has not waited since: it does not start.
            await trio.lowlevel.checkpoint()
        self._offer_calls()
        self._process.started()
        return True

    def _offer_calls(self) -> None:
        process = self._process
        if self._plain_call:
            process.plain_call = self._serve_plain
        else:
            process.async_call = self._begin_call
            process.served = self._served
        if self._server.hibernate_after_s is not None:
            self._watch_idleness(self._server.hibernate_after_s)

    @property
    def _server(self) -> GenServer:
        # Asked each time: sys.replace_state puts another one there.
        return self._process.behaviour  # type: ignore[return-value]

    def own_process(self) -> Process:
        """Return the process that runs the server."""
        return self._process

    # --- calls on the caller's stack -------------------------------------------------

    # Run by protected code; a handler can be interrupted, as anywhere.
    @disable_ki_protection
    def _serve_plain(self, ref: From) -> None:
        self.cancel_idle()
        self._served(ref, self._server.handle_call(ref.request, ref))

    def _begin_call(self, ref: From) -> Coroutine[Any, Any, object]:
        if self.idle_timer is not None:
            self.cancel_idle()
        return self._server.handle_call(ref.request, ref)  # type: ignore[return-value]

    def _served(self, ref: From, result: object) -> None:
        self._active = True
        if type(result) is Reply and result.plain:
            # The common case, with nothing else to look at.
            ref.reply(result.value)
            self._process.current = None
            return
        self._stop = self.answer(ref, result)
        if self._stop is None:
            self._process.current = None
        if (
            self._stop is not None
            or self.continuation is not ABSENT
            or self._hibernates
        ):
            # The loop is to see it instead of going to sleep again.
            self._process.push_signal(NUDGE)

    async def _serve(self) -> ExitReason:
        process = self._process
        while True:
            if process.signals:
                request = await self._take_signal()
                if request is not None:
                    return request.reason
                continue
            if self._stop is not None:
                return self._stop.reason
            if process.budget <= 0:
                await process.take_turn()
                continue
            if process.suspended:
                await process.park()
                continue
            if self._has_next():
                self._stop = await self._step()
            elif self._stop is None:
                # Here and not further in: an idle server keeps one frame less.
                await process.park()

    def _has_next(self) -> bool:
        process = self._process
        if self.continuation is not ABSENT or process.batch:
            return True
        if process.inbox:
            process.take_inbox()
            return True
        if self._hibernates and self._may_hibernate():
            self._stop = Stop(HIBERNATE)
        return False

    async def _step(self) -> Stop | None:
        process = self._process
        if self.continuation is not ABSENT:
            process.budget -= 1
            return await self._continue()
        self._hibernates, self._active = False, True
        return self._drain() or await self._handle_next()

    def _drain(self) -> Stop | None:
        """Handle messages for as long as nothing but plain callbacks is needed."""
        process, server, batch = self._process, self._server, self._process.batch
        while batch and process.budget > 0 and process.debug is None:
            item = batch[-1]
            kind = type(item)
            if kind is Cast and self._plain_cast:
                process.current = batch.pop()
                if self.idle_timer is not None:
                    self.cancel_idle()
                result = server.handle_cast(item[0])  # type: ignore[index]
                stop = None if result is None else self.noted("handle_cast", result)
            elif kind is From and self._plain_call:
                process.current = batch.pop()
                if self.idle_timer is not None:
                    self.cancel_idle()
                answer = server.handle_call(item.request, item)  # type: ignore[attr-defined, arg-type]
                stop = self.answer(item, answer)  # type: ignore[arg-type]
            else:
                return None
            if stop is not None:
                return stop
            process.current = None
            process.budget -= 1
            if process.signals or self.continuation is not ABSENT or self._hibernates:
                return None
        return None

    async def _take_signal(self) -> StopRequest | None:
        signal = self._process.signals.pop(0)
        if isinstance(signal, StopRequest):
            self._asked = True
            return signal
        if type(signal) is From:
            serve_system(self._process, signal)
            return None
        if signal is NUDGE:
            return None
        # The scope was cancelled: let the cancellation arrive.
        await trio.lowlevel.checkpoint()
        return None

    async def _continue(self) -> Stop | None:
        continuation, self.continuation = self.continuation, ABSENT
        result = self._server.handle_continue(continuation)
        if self._async_continue:
            result = await result  # type: ignore[misc]
        return self.noted("handle_continue", result)

    async def _handle_next(self) -> Stop | None:
        """Handle one message, if there is still reason to."""
        process, server = self._process, self._server
        if not process.batch or process.signals or process.budget <= 0:
            return None
        if self.continuation is not ABSENT or self._hibernates:
            return None
        item = process.current = process.batch.pop()
        process.budget -= 1
        self.cancel_idle()
        if process.debug is not None:
            process.debug.began(process, item)
        stop: Stop | None
        if isinstance(item, From):
            result = server.handle_call(item.request, item)
            if not self._plain_call:
                result = await result  # type: ignore[misc]
            stop = self.answer(item, result)
        elif isinstance(item, Cast):
            noted = server.handle_cast(item.message)
            if not self._plain_cast:
                noted = await noted  # type: ignore[misc]
            stop = self.noted("handle_cast", noted)
        else:
            stop = await self._inform(item)
        if process.debug is not None:
            process.debug.ended(process, item, stop)
        if stop is None:
            process.current = None
        return stop

    async def _inform(self, message: object) -> Stop | None:
        reason = ordered_end(message, self._process)
        if reason is not None:
            return Stop(reason)
        result = self._server.handle_info(message)
        if self._async_info:
            result = await result  # type: ignore[misc]
        return self.noted("handle_info", result)

    # --- hibernation ------------------------------------------------------------

    def put_away(self) -> None:
        """Hibernate once there is nothing to do."""
        self._hibernates = True

    def _may_hibernate(self) -> bool:
        # A cancellation around must find a task to arrive in.
        if trio.current_effective_deadline() == -inf:
            return False
        if self._idle_watch is not None:
            self._idle_watch.cancel()
        if self._process.limit is not None:
            self._process.room_made()
        return True

    def _watch_idleness(self, after_s: float) -> None:
        process = self._process

        def look() -> None:
            # As in OTP, one that waits for its timeout does not hibernate by itself.
            if self._active or not process.idle or self.idle_timer is not None:
                self._active = False
                self._watch_idleness(after_s)
            else:
                self._hibernates = True
                process.push_signal(NUDGE)

        timer = process.node.timers.after(after_s, look)
        process.own_timer(timer)
        self._idle_watch = timer

    def _may_terminate(self, error: BaseException) -> bool:
        passing = self._process.node.interrupts.pass_up(error)
        return passing is None or reason_of(passing) is SHUTDOWN

    async def _terminate(self, reason: ExitReason) -> bool:
        server, process = self._server, self._process
        if not server.has_terminate:
            return True
        if "terminate" not in server.async_callbacks:
            server.terminate(reason)
            return True
        shutdown = process.shutdown
        # Brutal kill is how others stop it; this end is its own.
        bound_s = DEFAULT_SHUTDOWN_S if isinstance(shutdown, BrutalKill) else shutdown
        deadline = trio.current_time() + bound_s
        with trio.CancelScope(shield=True, deadline=deadline) as grace:
            process.grace = grace
            await server.terminate(reason)  # type: ignore[misc]
        process.grace = None
        if grace.cancelled_caught:
            log.warning("process %r: terminate did not end in time", process.pid)
        return not grace.cancelled_caught
