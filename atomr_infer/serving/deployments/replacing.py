"""A deployment becomes another one while it serves: its engines are made anew.

*Beside* (the usual way): the engines of the new one are opened beside the old ones.
When all of them are open, they take the traffic in one step; what runs ends on the
old ones, which then end.  One that cannot be opened leaves all as it was::

    old    requests ───────────────┬ no new ones ─── last one ─ closed
    new              opening ──────┴ requests ─────────────────────────

*After*, where two do not fit: one replica after the other lets its requests end,
closes its engine and opens the new one, while requests wait in its queue.  Where one
cannot be opened, the old ones are opened again.

One that has failed is deployed anew; if it fails again it is not there any more.

It runs in the task that asks for it, since it may take minutes; what must be done in
one step is the deployment manager's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from atomr.errors import AtomrError, CallError, ChildError, StartError
from atomr.otp import call, start_child
from atomr_infer.errors import NotReadyError
from atomr_infer.model.failover import Swap
from atomr_infer.serving.deployments.deploying import deploy
from atomr_infer.serving.deployments.deployment_tree import context_spec
from atomr_infer.serving.deployments.reshaping import (
    if_there,
    remove_child,
    running_replicas,
)
from atomr_infer.serving.names import MANAGER, engine_core_name
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.fresh_error import fresh
from atomr_infer.serving.replicas.rebuild import Commit, Rebuild, Replace
from atomr_infer.serving.replicas.replica import Phase

if TYPE_CHECKING:
    from atomr.refs import Pid
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.replicas.engine_context import EngineContext, EngineSource
    from atomr_infer.serving.shared import Serving


async def replace(
    serving: Serving, wanted: tuple[Deployment, ...], expected: frozenset[str]
) -> None:
    """Take other deployments for those of their names; see ``Serving.replace``."""
    names = {deployment.name for deployment in wanted}
    busy = names & serving.replacing
    if busy:
        raise NotReadyError(f"{min(busy)} is being replaced; ask again when it is done")
    serving.replacing |= names
    phases = serving.readiness().phases
    failed = [each for each in wanted if phases.get(each.name) == Phase.FAILED.value]
    try:
        others = tuple(each for each in wanted if each not in failed)
        if others:
            await _replace(others, expected | names)
        for each in failed:
            # Nobody is served by it: there is nothing to keep.
            await _end_now(each.name)
            await deploy(serving, each, None, expected | names)
    except (CallError, ChildError, StartError) as error:
        # When all of the tree is being cancelled, so are we.
        await trio.lowlevel.checkpoint_if_cancelled()
        raise NotReadyError(
            f"{', '.join(names)} was stopped while it was replaced"
        ) from error
    finally:
        serving.replacing -= names


async def _replace(wanted: tuple[Deployment, ...], expected: frozenset[str]) -> None:
    rebuilds = await call(MANAGER, Replace(wanted, expected), timeout_s=None)
    if isinstance(rebuilds, Exception):
        raise rebuilds
    opened: list[_Swap] = []
    done = False
    try:
        for rebuild in sorted(rebuilds, key=_is_after):
            if rebuild.opens:
                _, running = await running_replicas(rebuild.tree)
                kind = _After if _is_after(rebuild) else _Beside
                swap = kind(rebuild, running)
                opened.append(swap)
                await swap.open()
        refused = await _commit(rebuilds, expected)
        if refused is not None:
            raise refused
        done = True
    except AtomrError:
        for back in reversed(opened):
            await back.go_back()
        raise
    finally:
        if not done:
            with trio.CancelScope(shield=True), if_there():
                for left in opened:
                    await left.abandon()


def _is_after(rebuild: Rebuild) -> bool:
    return rebuild.blueprint.deployment.serving.swap is Swap.AFTER


class _Swap(Protocol):
    """How one deployment comes to other engines."""

    async def open(self) -> None:
        """Open them all.

        Raises:
            InferenceError: one cannot be opened.
        """
        ...

    async def go_back(self) -> None:
        """Be what it was, without a cut.

        Raises:
            InferenceError: an old engine cannot be opened again.
        """
        ...

    async def abandon(self) -> None:
        """Be what it was, at once; does nothing where that is so."""
        ...


class _Beside:
    """Opens all beside those that serve."""

    def __init__(self, rebuild: Rebuild, running: dict[int, Pid]) -> None:
        self._rebuild = rebuild
        self._running = running

    async def open(self) -> None:
        rebuild = self._rebuild
        wanted = rebuild.wanted.serving.replicas
        for number, supervisor in self._running.items():
            if number < wanted:
                context = rebuild.blueprint.context(number, rebuild.source)
                rebuild.contexts[number] = context
                await start_child(supervisor, context_spec(context))
        for context in rebuild.contexts.values():
            await _opened(context)

    async def go_back(self) -> None:
        await self.abandon()

    async def abandon(self) -> None:
        # It ends: a context is killed when it must be.
        for number, context in self._rebuild.contexts.items():
            await remove_child(self._running[number], context.child_id)
        self._rebuild.contexts.clear()


class _After:
    """Closes and opens one after the other."""

    def __init__(self, rebuild: Rebuild, running: dict[int, Pid]) -> None:
        self._rebuild = rebuild
        self._running = running
        wanted = rebuild.wanted.serving.replicas
        self._numbers = [number for number in running if number < wanted]

    async def open(self) -> None:
        for number in self._numbers:
            await self._exchange(number, self._rebuild.source)

    async def go_back(self) -> None:
        for number in self._touched():
            await self._exchange(number, self._rebuild.blueprint.source)

    async def abandon(self) -> None:
        # Does not wait until they are open again.
        for number in self._touched():
            source = self._rebuild.blueprint.source
            context, last = await self._pause(number, source)
            await self._start(number, context, last)

    def _touched(self) -> list[int]:
        """The replicas that have another context than they had."""
        contexts, source = self._rebuild.blueprint.contexts, self._rebuild.source
        return [n for n in self._numbers if contexts[n].source is source]

    async def _exchange(self, number: int, source: EngineSource) -> None:
        """Let a replica's requests end, close its engine and open another."""
        context, last = await self._pause(number, source)
        if last.life is not None:
            # It ends: each request has a bound of its own.
            await last.life.unused.wait()
        await self._start(number, context, last)
        await _opened(context)

    async def _pause(
        self, number: int, source: EngineSource
    ) -> tuple[EngineContext, EngineContext]:
        """Have a replica wait for another context; return that and the last one."""
        blueprint = self._rebuild.blueprint
        last, context = blueprint.contexts[number], blueprint.context(number, source)
        blueprint.contexts[number] = context
        core = engine_core_name(self._rebuild.wanted.name, number)
        await call(core, messages.Pause(context.version), timeout_s=None)
        if last.life is not None:
            last.life.retire()
        return context, last

    async def _start(
        self, number: int, context: EngineContext, last: EngineContext
    ) -> None:
        supervisor = self._running[number]
        await remove_child(supervisor, last.child_id)
        await start_child(supervisor, context_spec(context))


async def _opened(context: EngineContext) -> None:
    """Wait until a context has its first runner.

    Raises:
        InferenceError: it cannot be opened.
    """
    await context.decided.wait()
    if context.error is not None:
        raise fresh(context.error)


async def _commit(
    rebuilds: tuple[Rebuild, ...], expected: frozenset[str]
) -> Exception | None:
    # Shielded: the manager would go on, and nobody would know.
    with trio.CancelScope(shield=True):
        refused = await call(MANAGER, Commit(rebuilds, expected), timeout_s=None)
    return refused  # noqa: RET504 - to the type checker a scope may swallow


async def drain(name: str, drain_s: float) -> bool:
    """Remove a deployment when its requests have ended; see ``Serving.undeploy``."""
    found: bool | None = None
    try:
        with trio.move_on_after(drain_s):
            found = await call(MANAGER, messages.Drain(name), timeout_s=None)
    except trio.Cancelled:
        await _end_now(name)
        raise
    return await _end_now(name) if found is None else found


async def _end_now(name: str) -> bool:
    # It ends: the manager answers when its processes have.
    with trio.CancelScope(shield=True):
        found = await call(MANAGER, messages.Undeploy(name), timeout_s=None)
    return found  # noqa: RET504 - to the type checker a scope may swallow
