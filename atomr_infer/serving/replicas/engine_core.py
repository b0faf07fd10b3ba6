"""The engine core: one replica's stable tier.

It owns the queue and the permits, and it outlives its engine.  The engine's
context is a process beside it (``engine_context``); when that dies, running
generations fail with the engine's error, waiting requests stay where they are,
and they run when the next context reports itself.

A permit is given back by ``Release``, or by the end of the process that asked
for it, whichever comes first; the queue takes both calmly.

How many run at once is what the deployment or the runner says, and less for a
while when the upstream answers 429 (:mod:`atomr_infer.policy.limits.concurrency`).

When its deployment is changed (``Adopt``), queue and permits stay.  If that took
another engine, it is there already, and the next permit is for it; the last one is
retired, and those who run on it count until they end.

An engine that nobody asks may be stopped, and started by the next request
(:mod:`atomr_infer.serving.replicas.idling`).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from atomr.core.exits import ExitReason, is_abnormal
from atomr.core.messages import Down
from atomr.otp import From, GenServer, NoReply, Reply, cast
from atomr.process import (
    demonitor,
    monitor,
    self_pid,
    send_after,
    whereis,
)
from atomr.refs import Pid, Ref
from atomr_infer.errors import InferenceError
from atomr_infer.policy.limits.concurrency import AdaptiveLimit
from atomr_infer.policy.tenants.admission import Admission, AdmissionQueue
from atomr_infer.serving.names import MANAGER, coordinator_name
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.estimates import estimate_on
from atomr_infer.serving.replicas.fresh_error import fresh
from atomr_infer.serving.replicas.idling import Idling
from atomr_infer.serving.replicas.permits import Ended, Permit, Permits
from atomr_infer.serving.replicas.replica import Lease, Phase, ReplicaState
from atomr_infer.serving.replicas.requester import (
    Requester,
    not_available,
    overloaded,
    refused_asleep,
    waited_too_long,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.replicas.blueprint import Blueprint

log = logging.getLogger(__name__)


class EngineCore(GenServer):
    """Admits requests to one replica's engine.

    Attributes:
        permits: who runs, and on what.
        state: what others see of it.
    """

    def __init__(self, blueprint: Blueprint, number: int) -> None:
        self._blueprint = blueprint
        self._number = number
        serving = self.deployment.serving
        self._queue: AdmissionQueue[Ref] = AdmissionQueue(
            max_queue=serving.max_queue, aging_s=serving.priority_aging_s
        )
        self.permits = Permits(self._queue)
        self._clients: dict[Ref, Requester] = {}
        self._by_monitor: dict[Ref, Requester] = {}
        self._context: Ref | None = None
        self._version = blueprint.contexts[number].version
        self._beside: messages.ContextUp | None = None
        self.state: ReplicaState
        self._idling = Idling(self)

    def init(self) -> None:
        """Announce the replica to its coordinator."""
        self.state = ReplicaState(
            number=self._number, core=self_pid(), permits=self.permits
        )
        self.permits.state = self.state
        self.permits.freed = partial(_tell_freed, self_pid())
        self._announce()
        if self._number >= self.deployment.serving.replicas:
            # The last core was told to retire, and has ended otherwise.
            cast(self_pid(), messages.Retire())

    @property
    def deployment(self) -> Deployment:
        """What it is a replica of, as of now."""
        return self._blueprint.deployment

    # --- requests -------------------------------------------------------------

    def handle_call(self, request: object, from_: From) -> Reply | NoReply:
        """Answer ``Admit`` with a lease, an error, or later."""
        match request:
            case messages.Admit():
                return self._admit(request, from_)
            case messages.EstimateCost():
                return Reply(estimate_on(self.permits.engine, request))
            case messages.Adopt():
                self._adopt(request)
                return Reply(None)
            case messages.Pause(version=version):
                self._pause(version)
                return Reply(None)
            case _:
                raise TypeError(f"EngineCore does not know the request {request!r}")

    def handle_cast(self, message: object) -> None:
        """Take releases, time-outs and what the engine's context reports."""
        match message:
            case messages.Release(ref=ref, ended=ended):
                self._release(ref, ended)
            case messages.Freed(permit=permit, ended=ended):
                self._freed(permit, ended)
            case messages.Announce():
                self.permits.left = None
                self._announce()
            case messages.Retire() | messages.Left():
                self.permits.left = partial(cast, self_pid(), messages.Left())
                self._tell_idle()
            case _:
                self._take_news(message)

    def _take_news(self, message: object) -> None:
        """Take what the engine's context reports."""
        match message:
            case messages.ContextUp():
                self._context_up(message)
            case messages.ContextFailed(error=error, version=version):
                if version == self._version:
                    self._context_failed(error)
            case messages.ContextFails(error=error, version=version):
                if version == self._version:
                    self._context_down(error)
            case messages.StaysAsleep(error=error, version=version):
                if version == self._version:
                    self._idling.stays_asleep(error)
            case messages.ContextProgress(progress=progress, version=version):
                if version == self._version or self.permits.engine is None:
                    self.state.progress = progress
            case _:
                raise TypeError(f"EngineCore does not know the message {message!r}")

    def handle_info(self, message: object) -> None:
        """Take the end of a requester or of the engine's context."""
        if isinstance(message, messages.QueueTimeout):
            self._give_up(message)
        elif isinstance(message, messages.LookIdle):
            self._idling.look(message.life)
        elif isinstance(message, Down):
            self._down(message)
        else:
            super().handle_info(message)

    def _admit(self, asked: messages.Admit, from_: From) -> Reply | NoReply:
        if self.state.phase is Phase.FAILED:
            return Reply(not_available(self.deployment, self.state.error))
        refused = self._idling.wake(asked)
        if refused is not None:
            return Reply(refused)
        client = Requester(Ref(), monitor(asked.requester), asked.is_probe)
        admission = self._ask(client.ref, asked)
        if admission is Admission.REFUSED:
            demonitor(client.down)
            asleep = self._idling.waking and not asked.may_wait
            return Reply(
                refused_asleep(self.deployment)
                if asleep
                else overloaded(self.deployment, self._queue)
            )
        self._clients[client.ref] = client
        self._by_monitor[client.down] = client
        if admission is Admission.GRANTED:
            return Reply(self._lease(client.ref))
        client.waiting = from_
        timeout_s = self.deployment.serving.queue_timeout_s
        if self._idling.waking:
            timeout_s = max(timeout_s, self.deployment.timeouts.load_s)
        late = messages.QueueTimeout(client.ref, timeout_s)
        client.timer = send_after(timeout_s, self_pid(), late)
        return NoReply()

    def _ask(self, ref: Ref, asked: messages.Admit) -> Admission:
        """Ask the queue; where it is full, somebody may have to make room."""
        now, priority, claim = trio.current_time(), asked.priority, asked.claim
        ask = partial(self._queue.ask, ref, now=now, priority=priority, claim=claim)
        admission = ask(may_wait=asked.may_wait)
        if admission is Admission.REFUSED and asked.may_wait:
            last = self._queue.displace(now=now, priority=priority, claim=claim)
            if last is not None:
                self._clients[last].answer(
                    overloaded(self.deployment, self._queue, "displaced")
                )
                self._leave(last)
                admission = ask()
        return admission

    def _leave(self, ref: Ref) -> None:
        client = self._clients.pop(ref, None)
        if client is None:
            return
        client.stop_timer()
        demonitor(client.down)
        del self._by_monitor[client.down]
        self._grant(self._queue.leave(ref))
        client.leave()
        if self.permits.left is not None:
            self._tell_idle()

    def _release(self, ref: Ref, ended: Ended) -> None:
        client = self._clients.get(ref)
        if client is None:
            return
        self._leave(ref)
        engine = self.permits.engine
        if engine is not None and engine.life is client.life:
            self._tune(client.generation, ended)

    def _freed(self, permit: Permit, ended: Ended) -> None:
        self._grant(self._queue.leave(permit.ref))
        permit.engine.life.leave()
        if permit.engine is self.permits.engine:
            self._tune(permit.generation, ended)
        if self.permits.left is not None:
            self._tell_idle()

    def _tune(self, generation: int, ended: Ended) -> None:
        permits = self.permits
        before = permits.limit.limit
        self._grant(permits.tune(generation, ended))
        if permits.limit.limit != before:
            log.info("%s: %d requests at once", self.label(), permits.limit.limit)

    def _give_up(self, late: messages.QueueTimeout) -> None:
        client = self._clients.get(late.ref)
        if client is None or client.waiting is None:
            return
        client.answer(waited_too_long(self.deployment, late.waited_s))
        self._leave(late.ref)

    def _grant(self, refs: Iterable[Ref]) -> None:
        for ref in refs:
            client = self._clients[ref]
            client.answer(self._lease(ref))

    def _lease(self, ref: Ref) -> Lease:
        engine = self.permits.engine
        assert engine is not None, "the queue is open only with an engine"
        client = self._clients[ref]
        client.generation = self.permits.limit.generation
        client.enter(engine.life)
        return Lease(
            ref=ref,
            core=self_pid(),
            runner=engine.runner,
            life=engine.life,
            capabilities=engine.runner.capabilities,
            model=engine.model,
        )

    # --- the engine -------------------------------------------------------------

    def _context_up(self, message: messages.ContextUp) -> None:
        if message.version < self._version:
            message.life.retire()
        elif message.version > self._version:
            self._beside = message  # it is run on when we are told so
        else:
            self._run_on(message)
            self.permits.limit = AdaptiveLimit(message.most(self.deployment))
            self._grant(self._queue.open(self.permits.limit.limit))

    def _run_on(self, engine: messages.ContextUp) -> None:
        if self._context is not None:
            demonitor(self._context)
        self._context = monitor(engine.context)
        self.permits.engine = engine
        self.state.starts += 1
        self.state.engine_pid = getattr(engine.runner, "pid", None)
        self.state.progress = None
        self._idling.begin(engine.life)
        if self.state.phase is Phase.RESTARTING:
            said = "%s: the engine is back, process %s"
            log.info(said, self.label(), self.state.engine_pid)
        self.enter(Phase.SERVING, None)

    def _adopt(self, asked: messages.Adopt) -> None:
        serving = self.deployment.serving
        self._queue.reshape(
            max_queue=serving.max_queue, aging_s=serving.priority_aging_s
        )
        last, beside = self.permits.engine, self._beside
        if asked.version > self._version:
            self._idling.end()
            self._version, self._beside = asked.version, None
            if beside is not None and beside.life.error is None:
                self._run_on(beside)
            else:
                self.let_go()
                self.enter(Phase.RESTARTING, None)
        engine = self.permits.engine
        if engine is not None:
            if not asked.keeps_limit:
                self.permits.limit = AdaptiveLimit(engine.most(self.deployment))
            self.permits.limit.resize(engine.most(self.deployment))
            self._grant(self._queue.open(self.permits.limit.limit))
            self._idling.look(engine.life)
        # Last: who was given a permit for it is counted by now.
        if last is not None and last is not engine:
            last.life.retire()

    def _pause(self, version: int) -> None:
        last, self._version = self.permits.engine, version
        self.let_go()
        self._idling.end()
        self.enter(Phase.LOADING, None)
        if last is not None:
            last.life.retire()

    def let_go(self) -> None:
        """Give no permit for the engine that is there."""
        if self._context is not None:
            demonitor(self._context)
        self._context = None
        self.permits.engine = None
        self.state.engine_pid = None
        self._queue.close()

    def _context_failed(self, error: InferenceError) -> None:
        self.enter(Phase.FAILED, error)
        self.answer_waiting(not_available(self.deployment, self.state.error))

    def answer_waiting(self, error: InferenceError) -> None:
        """Tell those that wait that they need not."""
        for ref, client in list(self._clients.items()):
            if client.waiting is not None:
                client.answer(fresh(error))
                self._leave(ref)

    def _down(self, down: Down) -> None:
        client = self._by_monitor.get(down.ref)
        if client is not None:
            self._leave(client.ref)
        elif down.ref == self._context:
            self._context_down(down.reason)

    def _context_down(self, reason: ExitReason) -> None:
        self.let_go()
        if not is_abnormal(reason):
            return  # its supervisor stops it, and then us
        error = reason if isinstance(reason, InferenceError) else None
        said = "%s: the engine is gone (%s); it restarts, %d requests wait"
        log.warning(said, self.label(), reason, self._queue.waiting)
        self.enter(Phase.RESTARTING, error)

    # --- what others see --------------------------------------------------------

    def _announce(self) -> None:
        name = coordinator_name(self.deployment.name)
        if whereis(name) is not None:
            cast(name, messages.ReplicaUp(self.state))

    def _tell_idle(self) -> None:
        if not self._queue.outstanding and whereis(MANAGER) is not None:
            name = self.deployment.name
            cast(MANAGER, messages.ReplicaIdle(self.state.core, name, self._number))

    def enter(self, phase: Phase, error: InferenceError | None) -> None:
        """Be in a phase, and say so."""
        self.state.phase = phase
        self.state.error = error
        name = coordinator_name(self.deployment.name)
        cast(name, messages.ReplicaChanged(self.state.core))

    def label(self) -> str:
        """Return what it is called in the log."""
        return f"{self.deployment.name}/{self._number}"


def _tell_freed(core: Pid, permit: Permit, ended: Ended) -> None:
    cast(core, messages.Freed(permit, ended))
