"""The runtime plugin ``python``: a function or class that the user wrote.

``runtime = "python:<module>:<attribute>"`` names it, and the deployment's options
are its keyword arguments.  It runs in an interpreter of its own: it may hold its
lock, fill its memory or crash, and the gateway goes on.
"""

from __future__ import annotations

import ast
import logging
import math
import os
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio

from atomr_infer.actors.definition import Kind, actor_of
from atomr_infer.errors import ConfigError, InferenceError
from atomr_infer.runtimes.contract import (
    Host,
    ModelRunner,
    Progress,
    RunnerContext,
    RuntimePlugin,
)
from atomr_infer.runtimes.files import expanded
from atomr_infer_python.abilities import Abilities, of_function, of_object
from atomr_infer_python.acting import abilities_of_actor, check_actor
from atomr_infer_python.calling import as_ours, result_of
from atomr_infer_python.gpus import check_gpus
from atomr_infer_python.marks import without_mark
from atomr_infer_python.parameters import (
    Parameters,
    check_options,
    parameters_in_source,
    parameters_of,
)
from atomr_infer_python.runner import PythonRunner
from atomr_infer_python.target import (
    FORM,
    Target,
    load_target,
    parse_target,
    statement_of,
)
from atomr_infer_python.thread import PinnedThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.deployment import Deployment

log = logging.getLogger(__name__)


class PythonPlugin(RuntimePlugin):
    """Functions and classes that are found by name."""

    name = "python"
    summary = "a function or class of your own, of this module and this name"
    host = Host.CHILD_PROCESS
    form = FORM

    def validate(self, deployment: Deployment) -> None:
        """Look for the name, and check the options, without running any of it.

        Raises:
            ConfigError: there is no such name, an option is not taken, or a function
                or a class is to be given a credential.
        """
        target = parse_target(deployment.runtime)
        if _is_seen(target, deployment):
            found = without_mark(str(target), statement_of(target), deployment)
            if isinstance(found, _DEFINITIONS):
                _refuse_credential(str(target), deployment)
            known = None if found is None else parameters_in_source(found)
            _options(str(target), known, deployment)

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[ModelRunner]:
        """Import it, make it, load it; the block's end closes it.

        Raises:
            ConfigError: there is no such name, it cannot be called so, an option is
                not taken, or it is no plugin and a credential is named.
            EngineError: its code fails.
        """
        target = parse_target(deployment.runtime)
        who = str(target)
        with PinnedThread(who) as thread:
            context.progress(Progress(f"importing {target.module}"))
            found = await thread.run(partial(load_target, target))
            if isinstance(found, RuntimePlugin) and not isinstance(found, type):
                async with found.open_runner(deployment, context) as runner:
                    yield runner
                return
            _refuse_credential(who, deployment)
            abilities = await _made(who, found, deployment, thread)
            async with loaded(who, abilities, thread, context):
                yield cast("ModelRunner", PythonRunner(who, abilities, thread))


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
"""What is no plugin: that is an object."""


def _refuse_credential(who: str, deployment: Deployment) -> None:
    if deployment.credential is None and not deployment.credentials:
        return
    raise ConfigError(
        f"deployment {deployment.name!r}: a credential is for runtime plugins, and "
        f"{who} is none; leave it out, and have your code read the variable or the file"
    )


def _is_seen(target: Target, deployment: Deployment) -> bool:
    """Whether it can be looked for from here.

    What another interpreter finds is not seen, a file is.  One that is for Ray's nodes
    need not be on this machine.

    Raises:
        ConfigError: no file can be called so.
    """
    if deployment.ray is not None:
        return target.is_file and expanded(target.module).is_file()
    return target.is_file or deployment.interpreter is None


async def _made(
    who: str, found: object, deployment: Deployment, thread: PinnedThread
) -> Abilities:
    """Make what the name stands for into functions, with the options.

    Raises:
        ConfigError: it is not callable, or not so.
        EngineError: making it fails.
    """
    actor = actor_of(found)
    if actor is not None:
        own = check_actor(who, actor, Kind.PROCESS, deployment.options)
        check_gpus(who, actor.devices, os.environ)
        return await abilities_of_actor(who, actor, own, thread)
    works = getattr(found, "generate", None) or getattr(found, "embed", None)
    if works is not None and not isinstance(found, type):
        if deployment.options:
            raise ConfigError(f"{who} is made already, and takes no options")
        return of_object(who, found)
    if not callable(found):
        raise ConfigError(
            f"{who} is {found!r}; it must be a function, a class, or an object with "
            "generate or embed"
        )
    options = _options(who, parameters_of(found), deployment)
    if not isinstance(found, type):
        return of_function(who, found, options)
    with as_ours(who):
        return of_object(who, await thread.run(partial(found, **options)))


@asynccontextmanager
async def loaded(
    who: str,
    abilities: Abilities,
    thread: PinnedThread,
    context: RunnerContext,
    *,
    close_s: float = math.inf,
) -> AsyncIterator[None]:
    """Have the code load before the block, and close behind it.

    It closes behind a load that fails, too: it may hold half of what it loads.

    Args:
        who: what errors call it.
        abilities: its functions.
        thread: where those run that are not async.
        context: who is told of the progress.
        close_s: seconds for its close, which is then given up; in a process of its
            own the bridge bounds it.

    Raises:
        EngineError: it fails.
    """
    try:
        if abilities.load is not None:
            context.progress(Progress("loading"))
            with as_ours(who):
                await result_of(abilities.load, thread=thread)
    except BaseException:
        await _closed_after_failure(who, abilities, thread, close_s)
        raise
    try:
        yield
    finally:
        await _close(who, abilities, thread, close_s)


async def _closed_after_failure(
    who: str, abilities: Abilities, thread: PinnedThread, close_s: float
) -> None:
    """Close, and leave the word to what has failed."""
    try:
        await _close(who, abilities, thread, close_s)
    except (InferenceError, ConfigError) as error:
        log.warning("%s did not load, and its close fails: %s", who, error)


async def _close(
    who: str, abilities: Abilities, thread: PinnedThread, close_s: float
) -> None:
    if abilities.close is None:
        return
    with trio.move_on_after(close_s, shield=True) as scope, as_ours(who):
        await result_of(abilities.close, thread=thread, abandons=True)
    if scope.cancelled_caught:
        log.warning(
            "%s: its close has not ended in %g s, and is given up", who, close_s
        )


def _options(
    who: str, parameters: Parameters | None, deployment: Deployment
) -> dict[str, Any]:
    """Return the keyword arguments.

    The deployment's ``model`` is one of them where one is called so.

    Raises:
        ConfigError: an option is not taken, or one that must be there is not.
    """
    options: dict[str, Any] = dict(deployment.options)
    if parameters is None:
        return options
    if deployment.model is not None and "model" in parameters.options:
        options.setdefault("model", deployment.model)
    check_options(who, parameters, options)
    return options


PLUGIN = PythonPlugin()
