"""From what a deployment's processes are to what its blueprint says.

The deployment manager's part: it starts and ends replicas, has engine cores run on
other contexts, and removes the contexts that nobody uses any more.  Nothing here
waits for a request: whatever is busy is told to say when it is not.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from atomr.errors import CallError, ChildError, ChildNotFoundError, StartError
from atomr.otp import (
    call,
    cast,
    delete_child,
    start_child,
    terminate_child,
    which_children,
)
from atomr.process import monitor, whereis
from atomr.refs import Pid
from atomr_infer.serving.deployments.deployment_tree import (
    REPLICAS,
    replica_id,
    replica_number,
    replica_spec,
)
from atomr_infer.serving.names import coordinator_name, engine_core_name
from atomr_infer.serving.replicas import messages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr.refs import Ref
    from atomr_infer.serving.replicas.blueprint import Blueprint
    from atomr_infer.serving.replicas.engine_context import EngineContext

log = logging.getLogger(__name__)

_NO_CONTEXTS: Mapping[int, EngineContext] = {}


@contextmanager
def if_there() -> Iterator[None]:
    """Take it calmly when what is steered has ended in this very moment."""
    try:
        yield
    except (CallError, ChildError, StartError) as error:
        log.info("not there any more: %s", error)


@attrs.frozen
class _Child:
    """Where a child is."""

    supervisor: Pid
    child_id: str


class Reshaping:
    """What was told to end, and is awaited."""

    def __init__(self) -> None:
        self._contexts: dict[Ref, _Child] = {}
        self._replicas: dict[tuple[str, int], _Child] = {}

    async def reshape(
        self,
        tree: Pid,
        blueprint: Blueprint,
        contexts: Mapping[int, EngineContext] = _NO_CONTEXTS,
        *,
        keeps_limit: bool = True,
    ) -> None:
        """Make a tree what its blueprint says.

        Args:
            tree: the deployment's.
            blueprint: what it is to be.
            contexts: those that replicas are to run on from now on, by number.
            keeps_limit: whether what upstreams taught of concurrency still holds.
        """
        with if_there():
            replicas, running = await running_replicas(tree)
            for number, supervisor in running.items():
                context = contexts.get(number)
                await self._adopt(
                    supervisor, blueprint, number, context, keeps_limit=keeps_limit
                )
            await self._scale(replicas, running, blueprint)
            name = coordinator_name(blueprint.deployment.name)
            if whereis(name) is not None:
                cast(name, messages.Reshaped())

    async def _adopt(
        self,
        supervisor: Pid,
        blueprint: Blueprint,
        number: int,
        context: EngineContext | None,
        *,
        keeps_limit: bool,
    ) -> None:
        last = blueprint.contexts[number]
        now = blueprint.contexts[number] = last if context is None else context
        core = whereis(engine_core_name(blueprint.deployment.name, number))
        if core is not None:
            with if_there():
                asked = messages.Adopt(now.version, keeps_limit)
                await call(core, asked, timeout_s=None)
        never_ran = last if last is not now and last.life is None else None
        await self._sweep(supervisor, now, never_ran)

    async def _sweep(
        self, supervisor: Pid, now: EngineContext, never_ran: EngineContext | None
    ) -> None:
        """Remove what a context has taken the place of, when it has ended.

        Args:
            supervisor: the replica's.
            now: the context that the replica runs on.
            never_ran: one of those, that serves nobody.
        """
        awaited = set(self._contexts.values())
        for child in await which_children(supervisor):
            place = _Child(supervisor, child.id)
            if not now.follows(child.id) or place in awaited:
                continue
            useless = never_ran is not None and child.id == never_ran.child_id
            if child.pid is None or useless:
                await remove_child(supervisor, child.id)
            else:
                self._contexts[monitor(child.pid)] = place

    async def _scale(
        self, replicas: Pid, running: Mapping[int, Pid], blueprint: Blueprint
    ) -> None:
        name = blueprint.deployment.name
        wanted = blueprint.deployment.serving.replicas
        for number in range(wanted):
            if number not in running:
                await start_child(replicas, replica_spec(blueprint, number))
        for number in running:
            core = whereis(engine_core_name(name, number))
            is_leaving = (name, number) in self._replicas
            if number >= wanted:
                child = _Child(replicas, replica_id(number))
                self._replicas[name, number] = child
                if core is not None:
                    self.retire(core)
            elif is_leaving:
                del self._replicas[name, number]
                if core is not None:
                    cast(core, messages.Announce())

    def retire(self, core: Pid) -> None:
        """Have an engine core say when it is idle."""
        cast(core, messages.Retire())

    async def idle(self, deployment: str, number: int) -> None:
        """End a replica that is not wanted any more, and that nobody uses."""
        child = self._replicas.pop((deployment, number), None)
        if child is not None:
            with if_there():
                await terminate_child(child.supervisor, child.child_id)

    async def ended(self, ref: Ref) -> bool:
        """Remove a context that has ended; False: it was none that is awaited."""
        child = self._contexts.pop(ref, None)
        if child is None:
            return False
        await remove_child(child.supervisor, child.child_id)
        return True


async def running_replicas(tree: Pid) -> tuple[Pid, dict[int, Pid]]:
    """Return the supervisor of a tree's replicas, and theirs by number."""
    (replicas,) = [c.pid for c in await which_children(tree) if c.id == REPLICAS]
    if replicas is None:
        raise ChildNotFoundError("which_children", REPLICAS)
    found = {
        replica_number(child.id): child.pid
        for child in await which_children(replicas)
        if child.pid is not None
    }
    return replicas, found


async def remove_child(supervisor: Pid, child_id: str) -> None:
    """End a child and forget it."""
    with if_there():
        await terminate_child(supervisor, child_id)
    with if_there():
        await delete_child(supervisor, child_id)
