"""The engine core: one replica's stable tier.

It owns the queue and the permits, and it outlives its engine.  The engine's
context is a process beside it (``engine_context``); when that dies, running
generations fail with the engine's error, waiting requests stay where they are,
and they run when the next context reports itself.

A permit is given back by ``Release``, or by the end of the process that asked
for it, whichever comes first; the queue takes both calmly.

How many run at once is what the deployment or the runner says, and less for a
while when the upstream answers 429 (:mod:`atomr_infer.policy.concurrency`).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.core.exits import ExitReason, is_abnormal
from atomr.core.messages import Down
from atomr.otp import From, GenServer, NoReply, Reply, cast
from atomr.process import (
    TimerRef,
    cancel_timer,
    demonitor,
    monitor,
    self_pid,
    send_after,
    whereis,
)
from atomr.refs import Pid, Ref
from atomr_infer.errors import InferenceError, NotReadyError, OverloadedError
from atomr_infer.policy.admission import Admission, AdmissionQueue
from atomr_infer.policy.concurrency import AdaptiveLimit
from atomr_infer.policy.cost_estimate import estimate_request
from atomr_infer.runtimes.contract import capabilities_of
from atomr_infer.serving import messages
from atomr_infer.serving.names import coordinator_name
from atomr_infer.serving.permits import Ended, Permit, Permits
from atomr_infer.serving.replica import Lease, Phase, ReplicaState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.cost import CostEstimate
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.prices import Price

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class _Client:
    """A request that holds a permit or waits for one."""

    ref: Ref
    down: Ref
    generation: int = 0
    waiting: From | None = None
    timer: TimerRef | None = None

    def answer(self, answer: Lease | InferenceError) -> None:
        """End its wait."""
        assert self.waiting is not None, "only who waits is answered"
        self.waiting.reply(answer)
        self.waiting = None
        self.stop_timer()

    def stop_timer(self) -> None:
        """Let go of the timer: it may be set for many minutes."""
        if self.timer is not None:
            cancel_timer(self.timer)
            self.timer = None


class EngineCore(GenServer):
    """Admits requests to one replica's engine."""

    def __init__(self, deployment: Deployment, number: int) -> None:
        self._deployment = deployment
        self._number = number
        self._queue: AdmissionQueue[Ref] = AdmissionQueue(
            max_queue=deployment.serving.max_queue,
            aging_s=deployment.serving.priority_aging_s,
        )
        self._permits = Permits(self._queue)
        self._clients: dict[Ref, _Client] = {}
        self._by_monitor: dict[Ref, _Client] = {}
        self._context: Ref | None = None
        self._state: ReplicaState

    def init(self) -> None:
        """Announce the replica to its coordinator."""
        self._state = ReplicaState(
            number=self._number, core=self_pid(), permits=self._permits
        )
        self._permits.state = self._state
        self._permits.freed = partial(_tell_freed, self_pid())
        self._announce()

    # --- requests -------------------------------------------------------------

    def handle_call(self, request: object, from_: From) -> Reply | NoReply:
        """Answer ``Admit`` with a lease, an error, or later."""
        match request:
            case messages.Admit():
                return self._admit(request, from_)
            case messages.EstimateCost(batch=batch, price=price):
                return Reply(self._estimate(batch, price))
            case _:
                raise TypeError(f"EngineCore does not know the request {request!r}")

    def handle_cast(self, message: object) -> None:
        """Take releases, time-outs and what the engine's context reports."""
        match message:
            case messages.Release(ref=ref, ended=ended):
                self._release(ref, ended)
            case messages.Freed(permit=permit, ended=ended):
                self._grant(self._queue.leave(permit.ref))
                if permit.engine is self._permits.engine:
                    self._tune(permit.generation, ended)
            case messages.ContextUp():
                self._context_up(message)
            case messages.ContextFailed(error=error):
                self._context_failed(error)
            case messages.ContextProgress(progress=progress):
                self._state.progress = progress
            case messages.Announce():
                self._announce()
            case _:
                raise TypeError(f"EngineCore does not know the message {message!r}")

    def handle_info(self, message: object) -> None:
        """Take the end of a requester or of the engine's context."""
        if isinstance(message, messages.QueueTimeout):
            self._give_up(message.ref)
        elif isinstance(message, Down):
            self._down(message)
        else:
            super().handle_info(message)

    def _admit(self, asked: messages.Admit, from_: From) -> Reply | NoReply:
        if self._state.phase is Phase.FAILED:
            return Reply(self._failure())
        client = _Client(ref=Ref(), down=monitor(asked.requester))
        admission = self._queue.ask(
            client.ref,
            now=trio.current_time(),
            priority=asked.priority,
            may_wait=asked.may_wait,
        )
        if admission is Admission.REFUSED:
            demonitor(client.down)
            return Reply(self._overloaded())
        self._clients[client.ref] = client
        self._by_monitor[client.down] = client
        if admission is Admission.GRANTED:
            return Reply(self._lease(client.ref))
        client.waiting = from_
        timeout_s = self._deployment.serving.queue_timeout_s
        client.timer = send_after(
            timeout_s, self_pid(), messages.QueueTimeout(client.ref)
        )
        return NoReply()

    def _estimate(
        self, batch: ExecuteBatch, price: Price | None
    ) -> CostEstimate | None:
        longest = None
        engine = self._permits.engine
        if engine is not None:
            able = capabilities_of(engine.runner, batch.model)
            longest = able.max_output_tokens
        return estimate_request(batch, price, max_output_tokens=longest)

    def _leave(self, ref: Ref) -> None:
        client = self._clients.pop(ref, None)
        if client is None:
            return
        client.stop_timer()
        demonitor(client.down)
        del self._by_monitor[client.down]
        self._grant(self._queue.leave(ref))

    def _release(self, ref: Ref, ended: Ended) -> None:
        client = self._clients.get(ref)
        if client is None:
            return
        self._leave(ref)
        if self._permits.engine is not None:
            self._tune(client.generation, ended)

    def _tune(self, generation: int, ended: Ended) -> None:
        permits = self._permits
        before = permits.limit.limit
        self._grant(permits.tune(generation, ended))
        if permits.limit.limit != before:
            log.info("%s: %d requests at once", self._label(), permits.limit.limit)

    def _give_up(self, ref: Ref) -> None:
        client = self._clients.get(ref)
        if client is None or client.waiting is None:
            return
        waited_s = self._deployment.serving.queue_timeout_s
        client.answer(
            OverloadedError(
                f"{self._deployment.name} has no free place: waited {waited_s:g} s",
                code="queue_timeout",
            )
        )
        self._leave(ref)

    def _grant(self, refs: Iterable[Ref]) -> None:
        for ref in refs:
            client = self._clients[ref]
            client.answer(self._lease(ref))

    def _lease(self, ref: Ref) -> Lease:
        engine = self._permits.engine
        self._clients[ref].generation = self._permits.limit.generation
        assert engine is not None, "the queue is open only with an engine"
        return Lease(
            ref=ref,
            core=self_pid(),
            runner=engine.runner,
            life=engine.life,
            capabilities=engine.runner.capabilities,
        )

    # --- the engine -------------------------------------------------------------

    def _context_up(self, message: messages.ContextUp) -> None:
        if self._context is not None:
            demonitor(self._context)
        self._context = monitor(message.context)
        self._permits.engine = message
        self._state.starts += 1
        self._state.engine_pid = getattr(message.runner, "pid", None)
        self._state.progress = None
        self._enter(Phase.SERVING, None)
        limit = self._deployment.serving.max_concurrency
        if limit is None:
            limit = message.runner.capabilities.max_concurrency
        self._permits.limit = AdaptiveLimit(limit)
        self._grant(self._queue.open(limit))

    def _context_failed(self, error: InferenceError) -> None:
        self._enter(Phase.FAILED, error)
        for ref, client in list(self._clients.items()):
            if client.waiting is not None:
                client.answer(self._failure())
                self._leave(ref)

    def _down(self, down: Down) -> None:
        client = self._by_monitor.get(down.ref)
        if client is not None:
            self._leave(client.ref)
        elif down.ref == self._context:
            self._context_down(down.reason)

    def _context_down(self, reason: ExitReason) -> None:
        self._context = None
        self._permits.engine = None
        self._state.engine_pid = None
        self._queue.close()
        if not is_abnormal(reason):
            return  # its supervisor stops it, and then us
        error = reason if isinstance(reason, InferenceError) else None
        log.warning(
            "%s: the engine is gone (%s); it restarts, %d requests wait",
            self._label(),
            reason,
            self._queue.waiting,
        )
        self._enter(Phase.RESTARTING, error)

    # --- what others see --------------------------------------------------------

    def _announce(self) -> None:
        name = coordinator_name(self._deployment.name)
        if whereis(name) is not None:
            cast(name, messages.ReplicaUp(self._state))

    def _enter(self, phase: Phase, error: InferenceError | None) -> None:
        self._state.phase = phase
        self._state.error = error
        name = coordinator_name(self._deployment.name)
        cast(name, messages.ReplicaChanged(self._state.core))

    def _label(self) -> str:
        return f"{self._deployment.name}/{self._number}"

    def _overloaded(self) -> OverloadedError:
        serving = self._deployment.serving
        return OverloadedError(
            f"{self._deployment.name} is full: {self._queue.running} requests run "
            f"and {self._queue.waiting} of {serving.max_queue} wait",
            code="queue_full",
        )

    def _failure(self) -> NotReadyError:
        return NotReadyError(
            f"{self._deployment.name} is not available: {self._state.error}"
        )


def _tell_freed(core: Pid, permit: Permit, ended: Ended) -> None:
    cast(core, messages.Freed(permit, ended))
