"""The loop of a GenServer: one message, one callback, one result.

System signals are looked at before each message.  Of 256 messages handled
without a wait, one makes a checkpoint, so that a full mailbox can hold up
neither other tasks nor a cancellation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import trio

from atomr.core.child_spec import DEFAULT_SHUTDOWN_S, BrutalKill
from atomr.core.exits import KILLED, SHUTDOWN, ExitReason
from atomr.core.messages import Exit, IdleTimeout
from atomr.errors import AtomrError
from atomr.otp.results import (
    ABSENT,
    Fail,
    Ignore,
    InitResult,
    NoReply,
    Ok,
    Reply,
    Stop,
)
from atomr.process.behaviour import StopRequest
from atomr.process.calls import Cast, From
from atomr.process.endings import PASS_UP, reason_of
from atomr.process.report import log

if TYPE_CHECKING:
    from atomr.otp.gen_server import GenServer
    from atomr.process.process import Process
    from atomr.process.timers import Timer


class BadReturnError(AtomrError):
    """A callback returned something that it must not.

    Attributes:
        callback: its name.
        value: what it returned.
    """

    def __init__(self, callback: str, value: object, expected: str) -> None:
        self.callback = callback
        self.value = value
        super().__init__(f"{callback} returned {value!r}, expected {expected}")


class InitStoppedError(AtomrError):
    """``init`` returned ``Stop``.

    Attributes:
        reason: the reason it gave.
    """

    def __init__(self, reason: ExitReason) -> None:
        self.reason = reason
        super().__init__(f"init returned Stop({reason!r})")


class ServerLoop:
    """Runs one GenServer in one process."""

    __slots__ = (
        "_asked",
        "_async_continue",
        "_async_info",
        "_continuation",
        "_idle",
        "_plain_call",
        "_plain_cast",
        "_process",
        "_server",
    )

    def __init__(self, server: GenServer, process: Process) -> None:
        self._server = server
        self._process = process
        self._asked = False
        self._continuation: object = ABSENT
        self._idle: Timer | None = None
        asynchronous = server.async_callbacks
        self._plain_call = "handle_call" not in asynchronous
        self._plain_cast = "handle_cast" not in asynchronous
        self._async_info = "handle_info" in asynchronous
        self._async_continue = "handle_continue" in asynchronous

    async def run(self) -> ExitReason:
        """Run ``init``, serve, run ``terminate``; return the exit reason."""
        if not await self._init():
            return SHUTDOWN
        try:
            reason = await self._serve()
        except BaseException as error:
            # Killed, or signalled without trapping: no terminate, as in OTP.
            if self._process.kill_reason is None and _may_terminate(error):
                await self._terminate(reason_of(error))
            raise
        in_time = await self._terminate(reason)
        # Who was asked to stop and did not in its time counts as killed.
        return KILLED if self._asked and not in_time else reason

    async def _init(self) -> bool:
        result: InitResult = self._server.init()  # type: ignore[assignment]
        if "init" in self._server.async_callbacks:
            result = await result  # type: ignore[misc]
        if isinstance(result, Ignore):
            self._process.ignored = True
            return False
        if isinstance(result, Stop):
            if isinstance(result.reason, BaseException):
                raise result.reason
            raise InitStoppedError(result.reason)
        if isinstance(result, Ok):
            self._note(result)
        elif result is not None:
            raise BadReturnError("init", result, "Ok, Ignore, Stop or None")
        self._process.started()
        return True

    async def _serve(self) -> ExitReason:
        process = self._process
        while True:
            if process.signals:
                request = await self._take_signal()
                if request is not None:
                    return request.reason
                continue
            if process.budget <= 0:
                await process.take_turn()
                continue
            if self._continuation is not ABSENT:
                process.budget -= 1
                stop = await self._continue()
            elif process.batch:
                stop = self._drain() or await self._handle_next()
            elif process.inbox:
                process.batch, process.inbox = process.inbox, []
                process.batch.reverse()
                continue
            else:
                await process.park()
                continue
            if stop is not None:
                return stop.reason

    def _drain(self) -> Stop | None:
        """Handle messages for as long as nothing but plain callbacks is needed."""
        process, server, batch = self._process, self._server, self._process.batch
        while batch and process.budget > 0:
            item = batch[-1]
            kind = type(item)
            if kind is Cast and self._plain_cast:
                process.current = batch.pop()
                self._cancel_idle()
                result = server.handle_cast(item.message)  # type: ignore[attr-defined]
                stop = (
                    None if result is None else self._note_cast("handle_cast", result)
                )
            elif kind is From and self._plain_call:
                process.current = batch.pop()
                self._cancel_idle()
                answer = server.handle_call(item.request, item)  # type: ignore[attr-defined, arg-type]
                stop = self._answer(item, answer)  # type: ignore[arg-type]
            else:
                return None
            if stop is not None:
                return stop
            process.current = None
            process.budget -= 1
            if process.signals or self._continuation is not ABSENT:
                return None
        return None

    async def _take_signal(self) -> StopRequest | None:
        signal = self._process.signals.pop(0)
        if isinstance(signal, StopRequest):
            self._asked = True
            return signal
        # The scope was cancelled: let the cancellation arrive.
        await trio.lowlevel.checkpoint()
        return None

    async def _continue(self) -> Stop | None:
        continuation, self._continuation = self._continuation, ABSENT
        result = self._server.handle_continue(continuation)
        if self._async_continue:
            result = await result  # type: ignore[misc]
        return self._note_cast("handle_continue", result)

    async def _handle_next(self) -> Stop | None:
        """Handle one message, if there is still reason to."""
        process, server = self._process, self._server
        if not process.batch or process.signals or process.budget <= 0:
            return None
        if self._continuation is not ABSENT:
            return None
        item = process.current = process.batch.pop()
        process.budget -= 1
        self._cancel_idle()
        stop: Stop | None
        if isinstance(item, From):
            result = server.handle_call(item.request, item)
            if not self._plain_call:
                result = await result  # type: ignore[misc]
            stop = self._answer(item, result)
        elif isinstance(item, Cast):
            noted = server.handle_cast(item.message)
            if not self._plain_cast:
                noted = await noted  # type: ignore[misc]
            stop = self._note_cast("handle_cast", noted)
        else:
            stop = await self._inform(item)
        if stop is None:
            process.current = None
        return stop

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    async def _inform(self, message: object) -> Stop | None:
        if self._is_order(message):
            return Stop(message.reason)
        result = self._server.handle_info(message)
        if self._async_info:
            result = await result  # type: ignore[misc]
        return self._note_cast("handle_info", result)

    def _is_order(self, message: object) -> TypeGuard[Exit]:
        # The supervisor's exit signal ends the server, trapped or not.
        return (
            type(message) is Exit
            and message.pid is not None
            and message.pid is self._process.parent.own_pid()
        )

    def _answer(self, from_: From, result: object) -> Stop | None:
        kind = type(result)
        if kind is Reply:
            from_.reply(result.value)  # type: ignore[attr-defined]
        elif kind is NoReply:
            from_.set_aside()
        elif kind is Fail:
            from_.fail(result.error)  # type: ignore[attr-defined]
        elif isinstance(result, Stop):
            if result.reply is not ABSENT:
                from_.reply(result.reply)
            return result
        else:
            raise BadReturnError("handle_call", result, "Reply, Fail, NoReply or Stop")
        self._note(result)  # type: ignore[arg-type]
        return None

    def _note_cast(self, callback: str, result: object) -> Stop | None:
        if result is None:
            return None
        if isinstance(result, Stop):
            return result
        if not isinstance(result, NoReply):
            raise BadReturnError(callback, result, "NoReply, Stop or None")
        self._note(result)
        return None

    def _note(self, result: Ok | Reply | Fail | NoReply) -> None:
        if result.continue_ is not ABSENT:
            self._continuation = result.continue_
        if result.timeout_s is not None:
            self._arm_idle(result.timeout_s)

    def _arm_idle(self, timeout_s: float) -> None:
        process = self._process
        self._cancel_idle()

        def fire() -> None:
            # A message that waits already is activity, not idleness.
            if not process.inbox and not process.batch:
                process.deliver(IdleTimeout())

        self._idle = process.node.timers.after(timeout_s, fire)
        process.own_timer(self._idle)

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


def _may_terminate(error: BaseException) -> bool:
    if isinstance(error, trio.Cancelled):
        return True
    if isinstance(error, BaseExceptionGroup):
        others = error.split(trio.Cancelled)[1]
        return others is None or others.subgroup(PASS_UP) is None
    return not isinstance(error, PASS_UP)
