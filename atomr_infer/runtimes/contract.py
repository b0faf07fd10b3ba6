"""What a runtime plugin must be.

A plugin is one object, named by an entry point of the group
``atomr_infer.runtimes``.  It says what it is and opens runners.  A runner is
one loaded model or one client of a provider; it runs generations.

The life of a runner is a ``with`` block, and so is the life of a generation::

    async with plugin.open_runner(deployment, context) as runner:
        async with runner.execute(batch) as chunks:
            async for chunk in chunks:
                ...

Leaving the inner block early *is* the cancellation: when the block has been
left, the engine no longer works on the request (local) or the connection is
closed (remote).  There is no other way to cancel, and none is needed.

A plugin whose ``host`` is ``CHILD_PROCESS`` is opened by the bridge inside a
child interpreter; the parent talks to a proxy with this same contract.  So a
plugin never needs to know where it runs, and its heavy imports belong inside
``open_runner``: listing plugins must stay cheap.

What the conformance suite (``atomr_infer.runtimes.conformance``) checks:

1.  Every index finishes exactly once, and no content follows its finish.
2.  The last chunk carries ``usage``; nothing follows it.
3.  Leaving the block early frees the engine: ``active`` is back to 0.
4.  Only :class:`~atomr_infer.errors.InferenceError` and cancellation leave
    ``execute`` or the iteration.
5.  Generations up to ``capabilities.max_concurrency`` run independently: one
    that is cancelled or fails does not disturb the others.
6.  ``max_tokens`` bounds ``usage.output_tokens``, with finish ``length``.
7.  ``capabilities`` tells the truth about what the requests need.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

from atomr_infer.model.secret import Secret

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.deployment import Deployment

ENTRY_POINT_GROUP = "atomr_infer.runtimes"


class Host(Enum):
    """Where a runtime's runners live."""

    IN_PROCESS = "in-process"
    CHILD_PROCESS = "child process"


@attrs.frozen
class Progress:
    """How far a runner's start has come.

    Attributes:
        phase: what happens now, in a few words: ``"loading weights"``.
        done: units done, when they can be counted.
        total: units in all, when it is known.
        unit: what is counted: ``"bytes"``, ``"tensors"``.
    """

    phase: str
    done: int | None = None
    total: int | None = None
    unit: str = "bytes"


def _discard(_: Progress) -> None:
    """Take progress that nobody shows."""


@attrs.frozen(kw_only=True)
class RunnerContext:
    """What a runner gets besides its deployment.

    Attributes:
        credential: the resolved secret; None when the deployment names none.
        progress: call it as the start advances; cheap, never blocks, to be
            called from the trio thread.
    """

    credential: Secret | None = None
    progress: Callable[[Progress], None] = _discard


class ModelRunner(Protocol):
    """One loaded model, or one client of a provider, that runs generations."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; constant over its life."""
        ...

    @property
    def active(self) -> int:
        """Generations now in the engine or on a connection."""
        ...

    def execute(
        self, batch: ExecuteBatch
    ) -> AbstractAsyncContextManager[AsyncIterator[TokenChunk]]:
        """Run one generation; the block's end is the generation's end.

        Raises:
            InferenceError: from entering the block or from the iteration.

        Cancellation: leaving the block, by any way, stops the generation
            before the block's exit returns.
        """
        ...

    async def failed(self) -> InferenceError:
        """Wait until the runner can serve no more, and return why.

        A healthy runner never returns from here.  After it returned, every
        ``execute`` raises, and the runner is to be closed and opened anew.
        """
        ...


@runtime_checkable
class RuntimePlugin(Protocol):
    """A kind of engine or provider.  Subclass it, or match its shape."""

    @property
    def name(self) -> str:
        """The entry point's name, as deployments write it in ``runtime``."""
        ...

    @property
    def summary(self) -> str:
        """One line for lists: what it runs."""
        ...

    @property
    def host(self) -> Host:
        """Where its runners live."""
        ...

    def missing(self) -> tuple[str, ...]:
        """Names of the Python packages that it needs and that are not installed.

        Must not import them: it is called to print a list.
        """
        return ()

    def validate(self, deployment: Deployment) -> None:
        """Refuse a deployment that this runtime could never run.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        ...

    def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AbstractAsyncContextManager[ModelRunner]:
        """Load the model or open the client; the block's end closes it.

        Raises:
            InferenceError: on entry, when it cannot be opened.
        """
        ...

    def environment_deployments(
        self, environ: Mapping[str, str]
    ) -> tuple[Deployment, ...]:
        """Return the deployments that the environment alone asks for.

        A provider whose key is set answers with a deployment of its models.
        """
        return ()

    def demo_deployment(self) -> Deployment | None:
        """Return a deployment of a model that is on this machine, if there is one.

        ``atomr-infer serve`` falls back to it when it is told nothing.
        """
        return None
