"""The parent's side: a runner in a child interpreter, behind the usual contract.

``opening`` starts the child; the proxy here speaks with it.  What can go wrong,
and what becomes of it:

=============================  ==============================================
the child ...                  then
=============================  ==============================================
cannot open the runner         :class:`EngineStartError` with its reason
exits while it loads           :class:`EngineStartError`: exit, last output
is not ready in ``load_s``     it is killed; :class:`EngineStartError`
dies later                     every stream and ``failed()`` give
                               :class:`EngineCrashedError` with the exit
is silent for ``silent_s``     it is killed; :class:`EngineHungError`
makes nothing for ``stuck_s``  it is killed; :class:`EngineHungError`
does not cancel in time        it is killed; :class:`EngineHungError`
sends garbage                  it is killed; :class:`EngineCrashedError`
has no memory for anything    it is closed; :class:`EngineCrashedError`
has more than it may have     it is killed; :class:`EngineCrashedError`
=============================  ==============================================

Only the load's time-out guards the load: an engine that reads weights may hold
its interpreter for longer than any heartbeat.
"""

from __future__ import annotations

import itertools
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import trio

from atomr_infer.bridge.parent import reasons
from atomr_infer.bridge.parent.questions import Questions
from atomr_infer.bridge.parent.shown import Shown
from atomr_infer.bridge.parent.watch import Watch
from atomr_infer.bridge.protocol.calls import ParentCall
from atomr_infer.bridge.protocol.deployment_values import deployment_to_wire
from atomr_infer.bridge.protocol.frames import (
    PROTOCOL_VERSION,
    Cancel,
    ChildFrame,
    Close,
    End,
    Execute,
    Failed,
    FrameError,
    Hello,
    Measure,
    Open,
    Ping,
    Pong,
    Ready,
    StartFailed,
    Starting,
    Told,
    child_reader,
)
from atomr_infer.bridge.protocol.link import Link
from atomr_infer.bridge.protocol.streams import ParentStream
from atomr_infer.bridge.protocol.values import batch_to_wire, capabilities_from_wire
from atomr_infer.bridge.system.capture import OutputCapture
from atomr_infer.bridge.system.kernel import KernelWatch
from atomr_infer.bridge.system.memory import await_excess
from atomr_infer.errors import OUT_OF_MEMORY, InferenceError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atomr_infer.bridge.parent.limits import BridgeLimits
    from atomr_infer.bridge.protocol.calls import Value
    from atomr_infer.bridge.protocol.frames import ParentFrame
    from atomr_infer.bridge.system.process import Child
    from atomr_infer.errors import EngineHungError
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.figures import Figure
    from atomr_infer.runtimes.contract import RunnerContext

_log = logging.getLogger(__name__)

OWN_CODE = "python:"
"""How the runtime is named that runs the user's own code."""

LINGER_S = 1.0
"""A child that closed its socket but lives on is killed after this long, and the
output of one that died is awaited for this long (helpers may hold its pipe)."""


class BridgedRunner(Questions):
    """A :class:`~atomr_infer.runtimes.contract.ModelRunner` in a child process."""

    def __init__(
        self,
        deployment: Deployment,
        context: RunnerContext,
        child: Child,
        limits: BridgeLimits,
    ) -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(child.link))
        reader = child_reader(max_bytes=limits.max_frame_bytes)
        self._link = Link(stream, reader, max_frame_bytes=limits.max_frame_bytes)
        self._deployment, self._name = deployment, deployment.name
        self._context = context
        self._child = child
        self._limits = limits
        self._kernel = KernelWatch(child.pid)
        self._shown = Shown(deployment.name, context.progress)
        self._watch = Watch(deployment.name, limits)
        is_own = deployment.runtime.startswith(OWN_CODE)
        self._output = OutputCapture(child.output, deployment.name, is_own=is_own)
        self._numbers = itertools.count()
        self._streams: dict[int, ParentStream | ParentCall] = {}
        self._capabilities: Capabilities | None = None
        self._error: InferenceError | None = None
        self._closing = self._ends_well = False
        # Set once each; a life goes from top to bottom, and may skip.
        self._started = trio.Event()
        self._failed = trio.Event()
        self._link_ended = trio.Event()
        self._exited = trio.Event()

    # --- ModelRunner --------------------------------------------------------

    @property
    def pid(self) -> int:
        """The child's process id; it is reaped when the runner is closed."""
        return self._child.pid

    @property
    def capabilities(self) -> Capabilities:
        """What the child's runner can do."""
        assert self._capabilities is not None, "handed out before it was ready"
        return self._capabilities

    @property
    def active(self) -> int:
        """Generations that the child has not reported as ended."""
        return len(self._streams)

    @asynccontextmanager
    async def execute(self, batch: ExecuteBatch) -> AsyncIterator[ParentStream]:
        """Run one generation in the child.

        Raises:
            InvalidRequestError: the request cannot be sent: too long, or it
                holds a value that is no JSON.
            EngineCrashedError: the child died.
            EngineHungError: the child stopped answering and was killed.
            InferenceError: as the child's runner raises.

        Cancellation: the exit waits, shielded, until the child says that the
            generation has stopped, at most ``cancel_s``; then it is killed.
        """
        window = self._limits.window
        stream = ParentStream(next(self._numbers), window, self._link.send_nowait)
        self._begin(
            stream, lambda: Execute(stream.number, batch_to_wire(batch), window)
        )
        try:
            yield stream
        finally:
            if not stream.ended.is_set():
                await self._stop_stream(stream)

    async def figures(self) -> tuple[Figure, ...]:
        """Return what the child's runner tells of its engine; none: it tells nothing.

        Cancellation: nobody waits for the answer any more; the child is left alone.
        """
        call = ParentCall(next(self._numbers), computes=False)
        self._begin(call, lambda: Measure(call.number))
        try:
            return cast("tuple[Figure, ...]", await call.value())
        finally:
            self._streams.pop(call.number, None)

    def reread(self, deployment: Deployment) -> None:
        """Be as patient with an engine that makes nothing as a deployment says now."""
        self._watch.reread(deployment)

    async def failed(self) -> InferenceError:
        """Wait until the child is of no use any more, and return why."""
        await self._failed.wait()
        assert self._error is not None
        return self._error

    def _begin(
        self, stream: ParentStream | ParentCall, frame: Callable[[], ParentFrame]
    ) -> None:
        if self._error is not None:
            raise reasons.again(self._error)
        try:
            self._link.send_nowait(frame())
        except FrameError as error:
            raise InvalidRequestError(
                f"the request cannot be passed to the engine: {error}"
            ) from error
        self._streams[stream.number] = stream

    async def _ask(
        self, frame: Callable[[int], ParentFrame], *, computes: bool = True
    ) -> Value:
        call = ParentCall(next(self._numbers), computes=computes)
        self._begin(call, lambda: frame(call.number))
        try:
            return await call.value()
        finally:
            if not call.ended.is_set():
                await self._stop_stream(call)

    async def _stop_stream(self, stream: ParentStream | ParentCall) -> None:
        stream.left = True
        self._link.send_nowait(Cancel(stream.number))
        bound_s = self._limits.cancel_s
        with trio.move_on_after(bound_s, shield=True):
            await stream.ended.wait()
        if not stream.ended.is_set():
            self._give_up(reasons.did_not_cancel(self._name, bound_s))

    # --- life ---------------------------------------------------------------

    async def start(self, plugin_ref: str) -> None:
        """Open the runner in the child, and wait until it is ready.

        Raises:
            EngineStartError: it is not, or not in time; the message says why.
            InferenceError: as the child's runner raises on opening.
        """
        secret = self._context.credential
        key = None if secret is None else secret.reveal()
        deployment = deployment_to_wire(self._deployment)
        try:
            self._link.send_nowait(Open(plugin_ref, deployment, key))
        except FrameError as error:
            raise reasons.cannot_ask(self._name, str(error)) from error
        bound_s = self._deployment.timeouts.load_s
        with trio.move_on_after(bound_s):
            await self._started.wait()
        if not self._started.is_set():
            self._give_up(
                reasons.not_ready_in_time(self._name, bound_s, self._shown.doing)
            )
        if self._error is not None:
            raise reasons.again(self._error)

    async def close(self) -> None:
        """End the child: ask, then SIGTERM, then SIGKILL; reap it.

        Cancellation: shielded; takes at most ``close_s + terminate_s`` and the
            moment that the kernel needs to kill a process.
        """
        with trio.CancelScope(shield=True):
            ready = self._capabilities is not None and self._error is None
            self._closing, self._ends_well = True, self._error is None
            self._fail(reasons.closed(self._name))
            if ready:
                self._link.send_nowait(Close())
                with trio.move_on_after(self._limits.close_s):
                    await self._exited.wait()
            if not self._exited.is_set():
                self._child.terminate()
                with trio.move_on_after(self._limits.terminate_s):
                    await self._exited.wait()
            self._child.kill()
            await self._exited.wait()

    async def run(self) -> None:
        """Move bytes and watch the child until it is reaped.

        Cancellation: shielded, for :meth:`close` needs it; whoever starts this
            must call :meth:`close`, which brings it to its end.
        """
        with trio.CancelScope(shield=True):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._link.write_forever)
                    nursery.start_soon(self._read_frames)
                    nursery.start_soon(self._output.run)
                    nursery.start_soon(self._look_after)
                    nursery.start_soon(self._kernel.look_forever)
                    nursery.start_soon(self._keep_within, self._limits.memory_bytes)
                    await self._await_exit()
                    nursery.cancel_scope.cancel()
            finally:
                # Also when one of these has a bug: close() waits for the event.
                self._child.kill()
                await self._child.wait()
                await self._link.aclose()
                self._exited.set()

    async def _await_exit(self) -> None:
        returncode = await self._child.wait()
        # What it said last comes before the news of its death.
        with trio.move_on_after(LINGER_S):
            await self._link_ended.wait()
            await self._output.ended.wait()
        if not self._ends_well:
            self._output.show_last()
        how, is_want = self._kernel.how(returncode)
        _log.info("engine process %d of deployment %r: %s", self.pid, self._name, how)
        self._fail(self._exit_error(how, is_want=is_want))

    def _exit_error(self, how: str, *, is_want: bool) -> InferenceError:
        code = OUT_OF_MEMORY if is_want else None
        if self._capabilities is not None:
            return reasons.crashed(self._name, how, code)
        return reasons.died_starting(
            self._name, how, self._shown.doing, self._output.tail, code
        )

    async def _look_after(self) -> None:
        """Ask for a sign of life in each turn, once the runner is ready."""
        await self._started.wait()
        hung: EngineHungError | None = None
        while hung is None:
            self._link.heard = False
            self._link.send_nowait(Ping())
            await trio.sleep(self._limits.heartbeat_s)
            asked = self._streams.values()
            hung = self._watch.after_turn(heard=self._link.heard, asked=asked)
        self._give_up(hung)

    async def _keep_within(self, limit_bytes: int | None) -> None:
        if limit_bytes is not None:
            taken = await await_excess(self.pid, limit_bytes)
            starts = self._capabilities is None
            self._give_up(
                reasons.took_too_much(self._name, taken, limit_bytes, starts=starts)
            )

    def _fail(self, error: InferenceError) -> None:
        """Note why no more work can be done; the first reason stays."""
        if self._error is not None:
            return
        self._error = error
        self._failed.set()
        self._started.set()
        for stream in self._streams.values():
            stream.cut(reasons.again(error))
        self._streams.clear()

    def _give_up(self, error: InferenceError) -> None:
        self._fail(error)
        self._child.kill()

    # --- what the child says ------------------------------------------------

    async def _read_frames(self) -> None:
        try:
            while (frames := await self._link.receive()) is not None:
                for frame in frames:
                    self._handle(frame)
        except FrameError as error:
            self._give_up(reasons.broke_protocol(self._name, str(error)))
        finally:
            self._link_ended.set()
        if self._closing:
            return
        # A child without its socket is of no use, should it still be there.
        await trio.sleep(LINGER_S)
        self._give_up(reasons.hung_up(self._name))

    def _handle(self, frame: ChildFrame) -> None:
        if isinstance(frame, Told):
            stream = self._streams.get(frame.stream)
            if stream is not None:
                stream.take(frame)
                self._watch.told |= stream.computes
            return
        match frame:
            case End(number, error):
                stream = self._streams.pop(number, None)
                if stream is not None:
                    stream.end(None if error is None else reasons.told(error))
                    # A child may let go of what its engine still holds.
                    self._watch.told |= stream.computes and not stream.left
            case Starting(progress):
                self._shown.take(progress)
            case Hello(protocol):
                self._check_protocol(protocol)
            case Ready(capabilities):
                self._capabilities = capabilities_from_wire(capabilities)
                self._watch.serves(self._capabilities)
                self._started.set()
            case StartFailed(error) | Failed(error):
                # It may have lost a helper here, and know no more than that.
                is_known = error.code is not None or self._deployment.ray is not None
                why = None if is_known else self._kernel.why()
                starts = isinstance(frame, StartFailed)
                self._fail(reasons.told_of_end(error, why, starts=starts))
            case Pong(steps):
                self._watch.steps = steps

    def _check_protocol(self, protocol: int) -> None:
        if protocol != PROTOCOL_VERSION:
            self._give_up(reasons.other_protocol(protocol))
