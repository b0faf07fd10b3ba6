"""The runtimes of pipelines: ``cascade``, ``cache`` and ``router``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError
from atomr_infer.pipeline.cache import CacheRunner, open_cache
from atomr_infer.pipeline.cascade import CascadeRunner
from atomr_infer.pipeline.gating import RouterOptions
from atomr_infer.pipeline.judges import Judges, find_function
from atomr_infer.pipeline.options import CacheOptions, CascadeOptions, from_table
from atomr_infer.pipeline.router import RouterRunner
from atomr_infer.runtimes.contract import Host, RuntimePlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RunnerContext

# What is of whom a deployment asks, and has no meaning at one that asks others.
_OF_MODELS = ("model", "credential", "credentials", "price", "budget", "rate_limits")


class CascadePlugin(RuntimePlugin):
    """Deployments that ask a cheap model first."""

    name = "cascade"
    summary = "a cheap model first, and a dearer one where its answer will not do"
    host = Host.IN_PROCESS

    def asks(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the models of its stages and judges."""
        return _options(deployment).asks()

    def validate(self, deployment: Deployment) -> None:
        """Refuse options that nothing reads, and what belongs to its stages.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        refuse_models_own(deployment)
        Judges(_options(deployment).stages)

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[CascadeRunner]:
        """Open a runner, which has nothing to load."""
        assert context.others is not None, "who composes is given the others"
        options = _options(deployment)
        yield CascadeRunner(options, context.others, Judges(options.stages))


def refuse_models_own(deployment: Deployment) -> None:
    """Refuse what says how one model is asked, at a deployment that asks others.

    Raises:
        ConfigError: names the member.
    """
    for name in _OF_MODELS:
        if getattr(deployment, name):
            raise ConfigError(
                f"{name} has no meaning for the runtime {deployment.runtime!r}, which "
                "asks other deployments; write it there"
            )


def _options(deployment: Deployment) -> CascadeOptions:
    return from_table(CascadeOptions, deployment.options, where="options")


class CachePlugin(RuntimePlugin):
    """Deployments that give an answer again."""

    name = "cache"
    summary = "another deployment's answers, given again to requests that are the same"
    host = Host.IN_PROCESS

    def asks(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the model whose answers it keeps."""
        return (_cache_options(deployment).model,)

    def validate(self, deployment: Deployment) -> None:
        """Refuse options that nothing reads, and what belongs to who is asked.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        refuse_models_own(deployment)
        _cache_options(deployment)

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[CacheRunner]:
        """Open a runner with nothing in it; what it holds goes with it."""
        assert context.others is not None, "who composes is given the others"
        options = _cache_options(deployment)
        async with open_cache(options, context.others) as runner:
            yield runner


def _cache_options(deployment: Deployment) -> CacheOptions:
    return from_table(CacheOptions, deployment.options, where="options")


class RouterPlugin(RuntimePlugin):
    """Deployments that ask a specialist."""

    name = "router"
    summary = "the specialist that a request is for, by rules, a model or a function"
    host = Host.IN_PROCESS

    def asks(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the specialists, the gate's model, and the default."""
        return _router_options(deployment).asks()

    def validate(self, deployment: Deployment) -> None:
        """Refuse options that nothing reads, and what belongs to who is asked.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        refuse_models_own(deployment)
        options = _router_options(deployment)
        if isinstance(options.gate, str):
            find_function(options.gate, what="gate")

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[RouterRunner]:
        """Open a runner, which has nothing to load."""
        assert context.others is not None, "who composes is given the others"
        yield RouterRunner(_router_options(deployment), context.others)


def _router_options(deployment: Deployment) -> RouterOptions:
    return from_table(RouterOptions, deployment.options, where="options")


ROUTER = RouterPlugin()
CASCADE = CascadePlugin()
CACHE = CachePlugin()
