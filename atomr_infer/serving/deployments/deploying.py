"""A deployment is started, and awaited, in the task of who asks for it."""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

import trio

from atomr.errors import CallError
from atomr.otp import call
from atomr_infer.errors import InferenceError, NotReadyError
from atomr_infer.serving.names import MANAGER, coordinator_name
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.key_check import KEY_REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.replicas.replica import ReplicaState
    from atomr_infer.serving.shared import Serving

_PROGRESS_EVERY_S = 0.1

# A manager that died is back after a few task switches, or not at all.
_MANAGER_TRIES = 5
_MANAGER_BACK_S = 0.05


def keeps_none(_: InferenceError) -> bool:
    """Have every deployment that could not be started removed again."""
    return False


def keeps_all(_: InferenceError) -> bool:
    """Have every one stay, and be tried again."""
    return True


def keeps_refused(error: InferenceError) -> bool:
    """Have one whose key is refused stay, to serve with another one."""
    return error.code == KEY_REFUSED


async def deploy(
    serving: Serving,
    deployment: Deployment,
    progress: Callable[[ReplicaState], None] | None,
    expected: frozenset[str],
    *,
    keeps: Callable[[InferenceError], bool] = keeps_none,
) -> None:
    """Start serving a deployment and wait until it serves; see ``Serving.deploy``."""
    try:
        # Shielded: the manager would go on, and nobody would know.  It ends:
        # the manager answers when processes stand, and has ended others.
        with trio.CancelScope(shield=True):
            asked = messages.Deploy(deployment, expected)
            refused = await call(MANAGER, asked, timeout_s=None)
        if refused is None:
            await await_serving(serving, deployment.name, progress)
    except CallError as error:
        await _withdraw(deployment)
        # When all of the tree is being cancelled, so are we.
        await trio.lowlevel.checkpoint_if_cancelled()
        raise NotReadyError(
            f"{deployment.name} was stopped before it served"
        ) from error
    except BaseException as error:
        if not (isinstance(error, InferenceError) and keeps(error)):
            await _withdraw(deployment)
        raise
    if refused is not None:
        raise refused


async def _withdraw(deployment: Deployment) -> None:
    """Remove what a failed deploy may have left, and nobody else's."""
    request = messages.Undeploy(deployment.name, only=deployment)
    with trio.CancelScope(shield=True):
        for _ in range(_MANAGER_TRIES):
            with suppress(CallError):
                await call(MANAGER, request, timeout_s=None)
                return
            await trio.sleep(_MANAGER_BACK_S)


async def await_serving(
    serving: Serving,
    name: str,
    progress: Callable[[ReplicaState], None] | None = None,
) -> None:
    """Wait until all replicas of a deployment serve, or cannot.

    Raises:
        CallError: it was stopped.
        InferenceError: none can.
    """
    # Asked again for each look: a nursery would wrap what progress raises.
    wait_s = inf if progress is None else _PROGRESS_EVERY_S
    while True:
        for replica in serving.replicas(name):
            if progress is not None:
                progress(replica)
        with trio.move_on_after(wait_s):
            error = await call(
                coordinator_name(name), messages.AwaitServing(), timeout_s=None
            )
            if error is None:
                return
            raise error
