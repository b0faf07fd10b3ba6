"""The server of a StateMachine that may wait: the same with ``await``."""

from __future__ import annotations

from inspect import iscoroutine
from typing import TYPE_CHECKING, Any

from atomr.core.state_events import Enter
from atomr.otp.results import NoReply, Reply, Stop
from atomr.otp.state_results import Call
from atomr.otp.state_server import DONE, MachineServer
from atomr.process.calls import Cast, From

if TYPE_CHECKING:
    from atomr.core.exits import ExitReason
    from atomr.otp.results import CallResult, CastResult, InitResult
    from atomr.otp.state_results import Next


class AsyncMachineServer(MachineServer):
    """Runs a machine that may wait."""

    async def init(self) -> InitResult:
        """Run ``init``."""
        return self.init_result(await _awaited(self.machine.init()))

    async def handle_call(self, request: object, from_: From) -> CallResult:
        """Serve a ``Call``."""
        event = Call(request, from_)
        result = await _awaited(self.run(event))
        if type(result) is Reply and result.plain and not self.engine.timeouts:
            return result
        return await self._finish_async(event, result) or DONE

    async def handle_cast(self, message: object) -> CastResult:
        """Serve a ``Cast``."""
        event = Cast((message,))
        result = await _awaited(self.run(event))
        if result is None and not self.engine.timeouts:
            return None
        return await self._finish_async(event, result)

    async def handle_info(self, message: object) -> CastResult:
        """Serve an ``Info`` or a time-out."""
        event = self.event_of(message)
        if event is None:
            return None
        return await self._finish_async(event, await _awaited(self.run(event)))

    async def handle_continue(self, continuation: Next | None) -> CastResult:
        """Enter the first state, or serve the next event that waits inside."""
        if continuation is not None:
            return await self._finish_async(None, continuation)
        process, event = self.take_waiting()
        result = await _awaited(self.run(event))
        stop = await self._finish_async(event, result)
        self.taken(process, event, result)
        return stop

    async def terminate(self, reason: ExitReason) -> None:
        """Run ``terminate`` of the machine."""
        await _awaited(self.machine.terminate(reason, self.engine.state))

    async def _finish_async(
        self, event: object, result: object
    ) -> NoReply | Stop | None:
        step = self.take(event, result)
        while type(step) is Enter:
            step = self.take(step, await _awaited(self.run(step)))
        return self.settled(event, step)


async def _awaited(result: Any) -> object:  # noqa: ANN401 - a result or a coroutine
    return await result if iscoroutine(result) else result
