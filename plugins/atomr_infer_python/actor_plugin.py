"""The runtime plugin ``actor``: an ``inference_actor`` of the user's.

``runtime = "actor:<module>:<name>"`` names it.  It asks other deployments, so it runs
in this process, as the code of a pipeline does, and it is imported when its deployment
is checked.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from atomr_infer.actors.context import Context, StageCaller
from atomr_infer.actors.definition import ASKS, Actor, Kind, actor_of
from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.contract import Host, RuntimePlugin
from atomr_infer_python.acting import abilities_of_actor, check_actor
from atomr_infer_python.plugin import loaded
from atomr_infer_python.runner import PythonRunner
from atomr_infer_python.target import Target, load_target, parse_target
from atomr_infer_python.thread import PinnedThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import ModelRunner, RunnerContext
    from atomr_infer.runtimes.others import Others
    from atomr_infer_python.abilities import Abilities
    from atomr_infer_python.runner import Chunks

CLOSE_S = 10.0
"""Seconds for an actor's ``close``: as long as a process has for its own."""


class ActorPlugin(RuntimePlugin):
    """Actors that ask deployments, found by name."""

    name = "actor"
    summary = "an inference_actor of your own, which asks other deployments"
    host = Host.IN_PROCESS
    form = "actor:<module>:<attribute>"

    def asks(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the names that it looks up."""
        return _asks(deployment, _actor_of(deployment))

    def validate(self, deployment: Deployment) -> None:
        """Import it, and check the options.

        Raises:
            ConfigError: there is no such actor, or an option is not taken.
        """
        actor = _actor_of(deployment)
        check_actor(actor.label, actor, Kind.LOOP, deployment.options)
        _asks(deployment, actor)

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[ModelRunner]:
        """Make it, load it; the block's end closes it.

        Raises:
            ConfigError: there is no such actor, or an option is not taken.
            EngineError: its code fails.
        """
        actor = _actor_of(deployment)
        who = actor.label
        options = check_actor(who, actor, Kind.LOOP, deployment.options)
        with PinnedThread(who) as thread:
            abilities = await abilities_of_actor(who, actor, options, thread)
            async with loaded(who, abilities, thread, context, close_s=CLOSE_S):
                asks = frozenset(_asks(deployment, actor))
                yield ActorRunner(who, abilities, thread, context.others, asks=asks)


class ActorRunner(PythonRunner):
    """Gives its code the way to others with each request.

    Args:
        others: who is asked; None: nobody.
        asks: their names.
    """

    def __init__(
        self,
        who: str,
        abilities: Abilities,
        thread: PinnedThread,
        others: Others | None,
        *,
        asks: frozenset[str],
    ) -> None:
        super().__init__(who, abilities, thread)
        self._generate = abilities.generate
        self._others = others
        self._asks = asks

    @asynccontextmanager
    async def execute(self, batch: ExecuteBatch) -> AsyncIterator[Chunks]:
        """Handle one request.

        Raises:
            InferenceError: from the iteration: the code raised.

        Cancellation: ends the code where it waits, and what it asks.
        """
        if self._others is None:
            async with self._handling(batch, StageCaller(None, batch)) as chunks:
                yield chunks
            return
        async with (
            self._others.asking() as asking,
            self._handling(batch, StageCaller(asking, batch)) as chunks,
        ):
            yield chunks

    @asynccontextmanager
    async def _handling(
        self, batch: ExecuteBatch, caller: StageCaller
    ) -> AsyncIterator[Chunks]:
        assert self._generate is not None, "an actor handles requests"
        given = Context(batch.request_id, self._asks, caller)
        async with self._answering(batch, partial(self._generate, given)) as chunks:
            yield chunks


def _actor_of(deployment: Deployment) -> Actor:
    """Import what a deployment names, and return it.

    Raises:
        ConfigError: there is no such thing, or it is no actor.
    """
    target = parse_target(deployment.runtime)
    found = _found(target)
    actor = actor_of(found)
    if actor is not None:
        return actor
    raise ConfigError(
        f"{target} is {found!r}, and no actor; decorate it with "
        "atomr_infer.actors.inference_actor, or write python:... for what asks nobody"
    )


def _found(target: Target) -> object:
    """Return it from the module that is there, or import that."""
    if not target.is_file:
        return load_target(target)
    # Not a second time: its classes would be others than the program's.
    file = Path(target.module).expanduser().absolute()
    for module in [*sys.modules.values()]:
        known = getattr(module, "__file__", None) or ""
        # There are thousands, and a path is slow.
        if known.endswith(file.name) and Path(known).absolute() == file:
            found: object = module
            for name in target.attribute.split("."):
                found = getattr(found, name, None)
            if found is not None:
                return found
    return load_target(target)


def _asks(deployment: Deployment, actor: Actor) -> tuple[str, ...]:
    """Return whom it asks: as its deployment says, or else as its code does.

    Raises:
        ConfigError: it does not say it in a list of names.
    """
    said = deployment.options.get(ASKS)
    if said is None:
        return tuple(dict.fromkeys(actor.asks))
    if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
        raise ConfigError(f"{ASKS} is {said!r}; it must be a list of models' names")
    return tuple(dict.fromkeys(map(str, said)))


PLUGIN = ActorPlugin()
