"""A deployment serves when its provider takes its key, as far as that can be told.

It is asked once, when the runner is open and before requests come, by something that
costs nothing (:class:`~atomr_infer.runtimes.contract.ChecksKey`).  A provider that does
not answer says nothing of the key: the deployment serves, and requests meet whatever it
is.  A key that is refused means that each request would be: the replica fails with a
reason, and goes on trying, later and later, and at once where another key is found.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import InferenceError, UpstreamAuthError, UpstreamTimeoutError
from atomr_infer.model.placement import Check
from atomr_infer.model.secret import EnvSecret, FileSecret, HeaderSecret, PluginSecret
from atomr_infer.runtimes.contract import ChecksKey
from atomr_infer.serving.replicas.replica import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.secret import Secret, SecretSource
    from atomr_infer.runtimes.contract import ModelRunner
    from atomr_infer.runtimes.credentials import Credentials
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

KEY_REFUSED = "key_refused"
"""The code of the error of a deployment that waits for another key."""

CHECK_S = 5.0
"""A provider that takes longer has said nothing."""

_AGAIN_S = 5.0
_MAX_AGAIN_S = 300.0
_LOOK_EVERY_S = 1.0


async def await_key(
    runner: ModelRunner,
    deployment: Deployment,
    keys: Credentials | None,
    *,
    tell: Callable[[InferenceError], None],
    is_over: Callable[[], bool],
) -> None:
    """Return when the key is taken, when nobody can say, or when it does not matter.

    Args:
        runner: open, and asked by nobody yet.
        deployment: whose.
        keys: hands out its keys; None: it has none.
        tell: called with each refusal.
        is_over: whether the runner is of no use any more.

    Cancellation: closes the connection.
    """
    source = whence(deployment)
    if (
        not source
        or keys is None
        or deployment.placement.check is not Check.MODELS
        or not isinstance(runner, ChecksKey)
    ):
        return
    again_s = _AGAIN_S
    while not is_over():
        refusal = await _refusal(runner, deployment.name)
        if refusal is None:
            return
        tell(_named(refusal, source))
        await _another_key(keys, again_s, is_over)
        again_s = min(2 * again_s, _MAX_AGAIN_S)


async def _refusal(runner: ChecksKey, name: str) -> UpstreamAuthError | None:
    try:
        with trio.fail_after(CHECK_S):
            await runner.check_key()
    except UpstreamAuthError as refusal:
        return refusal
    except InferenceError as error:
        log.info("%s: whether its key is taken is not known: %s", name, error)
    except trio.TooSlowError:
        late = UpstreamTimeoutError(f"no answer within {CHECK_S:g} s")
        log.info("%s: whether its key is taken is not known: %s", name, late)
    return None


async def _another_key(
    keys: Credentials, again_s: float, is_over: Callable[[], bool]
) -> None:
    """Wait until it is worth asking again: another key, or time has passed."""
    version = keys.look()
    with trio.move_on_after(again_s):
        while keys.look() == version and not is_over():  # noqa: ASYNC110 - at files
            await trio.sleep(_LOOK_EVERY_S)


def _named(refusal: UpstreamAuthError, source: str) -> UpstreamAuthError:
    return UpstreamAuthError(
        f"the provider refuses the key from {source}: {refusal.message}",
        code=KEY_REFUSED,
        status=refusal.status,
    )


def whence(deployment: Deployment) -> str:
    """Return where a deployment's keys are from; "": it has none of its own."""
    sources: list[SecretSource] = [key.source for key in deployment.credentials]
    if deployment.credential is not None:
        sources.append(deployment.credential)
    return ", ".join(_place(source) for source in sources if _is_kept(source))


def _is_kept(source: SecretSource | Secret) -> bool:
    return not isinstance(source, HeaderSecret)


def _place(source: SecretSource | Secret) -> str:
    match source:
        case EnvSecret(variable=variable):
            return f"the environment variable {variable}"
        case FileSecret(path=path):
            return f"the file {path}"
        case PluginSecret(provider=provider):
            return f"the credential provider {provider!r}"
        case _:
            return "the program"


def waits_for_key(serving: Serving, name: str) -> bool:
    """Whether a deployment here has failed for its key, and tries on."""
    return key_refusal(serving, name) is not None


def key_refusal(serving: Serving, name: str) -> InferenceError | None:
    """Return what a deployment here has failed with for its key; None: it has not."""
    errors = [
        replica.error if replica.phase is Phase.FAILED else None
        for replica in serving.replicas(name)
    ]
    refusals = [error for error in errors if error and error.code == KEY_REFUSED]
    return refusals[0] if refusals and len(refusals) == len(errors) else None
