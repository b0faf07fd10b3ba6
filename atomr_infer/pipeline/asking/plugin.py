"""What runtimes have in common whose deployments ask others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from atomr_infer.errors import ConfigError
from atomr_infer.pipeline.asking.options import from_table
from atomr_infer.runtimes.contract import Host, RuntimePlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import ModelRunner, RunnerContext
    from atomr_infer.runtimes.others import Others

# What is of whom a deployment asks, and has no meaning at one that asks others.
_OF_MODELS = ("model", "credential", "credentials", "price", "budget", "rate_limits")


class AskingOptions(Protocol):
    """What a deployment's ``options`` say, checked."""

    def asks(self) -> tuple[str, ...]:
        """The public names of who may be asked, each once."""
        ...


T = TypeVar("T", bound=AskingOptions)


class AskingPlugin(RuntimePlugin, ABC, Generic[T]):
    """A runtime whose deployments ask others.

    Attributes:
        options: the attrs class that ``options`` is read as.
    """

    name: str
    summary: str
    host = Host.IN_PROCESS
    options: type[T]

    def asks(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the models that may be asked."""
        return self._read(deployment).asks()

    def validate(self, deployment: Deployment) -> None:
        """Refuse options that nothing reads, and what belongs to who is asked.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        refuse_models_own(deployment)
        self._check(self._read(deployment))

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[ModelRunner]:
        """Open a runner, which has nothing to load."""
        assert context.others is not None, "who composes is given the others"
        options = self._read(deployment)
        async with self._open(deployment.name, options, context.others) as runner:
            yield runner

    def _read(self, deployment: Deployment) -> T:
        return from_table(self.options, deployment.options, where="options")

    def _check(self, options: T) -> None:
        """Refuse options that are well formed, and name what is not there."""

    @abstractmethod
    def _open(
        self, name: str, options: T, others: Others
    ) -> AbstractAsyncContextManager[ModelRunner]:
        """Return the block in which a deployment's runner is open."""


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
