"""Opening a runner in a child interpreter, and closing it whatever happens."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr_infer.bridge.on_ray.needs import relay_interpreter
from atomr_infer.bridge.on_ray.order import ORDER, order_of, written
from atomr_infer.bridge.parent.limits import BridgeLimits, limits_of
from atomr_infer.bridge.parent.runner import BridgedRunner
from atomr_infer.bridge.system.environment import child_environment
from atomr_infer.bridge.system.interpreter import check_interpreter
from atomr_infer.bridge.system.memory import is_told
from atomr_infer.bridge.system.process import start_child
from atomr_infer.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RunnerContext

CHILD_MODULE = "atomr_infer.bridge.child"
RELAY_MODULE = "atomr_infer.bridge.on_ray.relay"


@asynccontextmanager
async def open_bridged_runner(
    plugin_ref: str,
    deployment: Deployment,
    context: RunnerContext,
    *,
    python: str | None = None,
    python_path: Sequence[str] = (),
    limits: BridgeLimits | None = None,
) -> AsyncIterator[BridgedRunner]:
    """Open a runtime's runner in a child interpreter; the block's end closes it.

    Args:
        plugin_ref: the plugin object as ``module:attribute``, the value of its
            entry point.
        deployment: what the runner is for; ``timeouts.load_s`` bounds entering.
        context: the credential goes to the child, which sees no other GPUs than those
            that it names; progress comes from it.
        python: the child's interpreter; it needs this package and the plugin.
            None: the one that the deployment names, else this one.  On Ray it is
            that of the relay, which needs Ray.
        python_path: folders that come first on the child's import path.
        limits: how patient to be; None: as the deployment says.

    Raises:
        EngineStartError: on entry, when the deployment's interpreter is of no use,
            its memory cannot be looked at as it says, or the child is not ready in
            time, dies, or says why it cannot open the runner.
        InferenceError: on entry, as the plugin raises it.

    Cancellation: leaving the block ends the child, by force if need be; it
        takes ``close_s + terminate_s`` at most, shielded.
    """
    _check_memory_limit(deployment)
    module = CHILD_MODULE if deployment.ray is None else RELAY_MODULE
    order = order_of(plugin_ref, deployment)
    if python is None:
        python = await _interpreter(plugin_ref, deployment)
    try:
        child = start_child(
            module,
            python=python,
            environment=child_environment(
                python,
                # On Ray they are the engine's, and not the relay's.
                own=(
                    deployment.environment if order is None else {ORDER: written(order)}
                ),
                python_path=python_path,
                gpus=context.gpus,
            ),
        )
    except OSError as error:
        raise EngineStartError(
            f"the interpreter {python!r} cannot be started: {error}"
        ) from error
    runner = BridgedRunner(
        deployment, context, child, limits_of(deployment) if limits is None else limits
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.run)
            try:
                await runner.start(plugin_ref)
                yield runner
            finally:
                await runner.close()
    except BaseExceptionGroup as group:
        # The nursery is ours alone: what the block raised must leave it bare.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise


async def _interpreter(plugin_ref: str, deployment: Deployment) -> str:
    if deployment.ray is not None:
        return await relay_interpreter(deployment.ray)
    own = deployment.interpreter
    if own is None:
        return sys.executable
    await check_interpreter(own, plugin_ref, deployment.runtime, deployment.environment)
    return own


def _check_memory_limit(deployment: Deployment) -> None:
    limit_gib = deployment.memory_limit_gib
    if limit_gib is not None and not is_told():
        raise EngineStartError(
            f"memory_limit_gib is {limit_gib:g}, but this system does not tell what a "
            "process has (/proc/self/status); leave it out"
        )
