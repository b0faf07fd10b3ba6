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
8.  A request with a ``source`` of a dialect in ``capabilities.passes`` is
    answered by ``RawChunk`` only or by ``TokenChunk`` only, and the promises
    above hold for both.

Some runners do more than generate: see :class:`ModelAware`, :class:`Embedder`,
:class:`TokenCounter`, :class:`ChecksKey` and :class:`TensorRunner`; one that is
:class:`Stepped` is found stuck sooner.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

from atomr_infer.model.secret import Secret
from atomr_infer.runtimes.credentials import Credentials
from atomr_infer.runtimes.others import Others

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.embeddings import Embeddings, EmbedRequest
    from atomr_infer.model.tensors import Inferred, InferRequest

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
        credential: the key as it was when the runner was opened; None when the
            deployment names none, or none that is known before a request.
        credentials: hands out the key for each request; None when the
            deployment names none, and in a child process.
        progress: call it as the start advances; cheap, never blocks, to be
            called from the trio thread.
        others: the other deployments, for a plugin that ``Composes``; None: for all
            the rest.
        gpus: those that the replica was given, by their UUIDs: a child process sees
            no other ones; empty: it was given none, and sees what there is.
    """

    credential: Secret | None = None
    credentials: Credentials | None = None
    progress: Callable[[Progress], None] = _discard
    others: Others | None = None
    gpus: tuple[str, ...] = ()


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
    ) -> AbstractAsyncContextManager[AsyncIterator[TokenChunk | RawChunk]]:
        """Run one generation; the block's end is the generation's end.

        Only a request with a ``source`` is ever answered by ``RawChunk``.

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
class ModelAware(Protocol):
    """A runner behind which several models with different abilities stand."""

    def capabilities_for(self, model: str) -> Capabilities:
        """Return what one of its models can do; cheap, and constant."""
        ...


class NotPassedError(Exception):
    """Nothing came of a passage, and nothing was said: ask in the ordinary way."""


class Passage(Protocol):
    """One generation over what is at hand; end it whatever came of it."""

    async def begin(self) -> AsyncIterator[TokenChunk | RawChunk]:
        """Ask; return the chunks of the answer, which has begun.

        Raises:
            NotPassedError: the request is to be made by ``execute``.
            InferenceError: as ``execute`` raises it.

        Cancellation: leaves it to be ended.
        """
        ...

    async def end(self, error: BaseException | None) -> None:
        """Stop the generation before this returns, if it is not over.

        Args:
            error: why it ended; None: the answer is whole.
        """
        ...


@runtime_checkable
class PassesOn(Protocol):
    """A runner with a shorter way for requests that it sends on as they are."""

    def passage(self, batch: ExecuteBatch, *, total_at: float) -> Passage | None:
        """Return the shorter way for a request; None: there is none for it now.

        Args:
            batch: the request, with its ``source``; its conversation may be empty.
            total_at: when it must be over, in trio's clock.
        """
        ...


@runtime_checkable
class Embedder(Protocol):
    """A runner that turns texts into vectors (``Feature.EMBEDDINGS``)."""

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return one vector for each input, in order.

        Raises:
            InferenceError: it failed.

        Cancellation: closes the connection or stops the engine.
        """
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """A runner that counts a prompt's tokens (``Feature.COUNT_TOKENS``)."""

    async def count_tokens(self, batch: ExecuteBatch) -> int:
        """Return the tokens of a request's prompt, tools included.

        Raises:
            InferenceError: it failed.
        """
        ...


@runtime_checkable
class ChecksKey(Protocol):
    """A runner that can find out whether its key is taken, at no cost."""

    async def check_key(self) -> None:
        """Ask something that costs nothing.

        Raises:
            UpstreamAuthError: the key is refused, whatever is asked with it.
            InferenceError: nobody can say: the provider is away, or knows no such
                request.

        Cancellation: closes the connection.
        """
        ...


@runtime_checkable
class TensorRunner(Protocol):
    """A runner that takes tensors (``Feature.INFER``, with its ``signature``)."""

    async def infer(self, request: InferRequest) -> Inferred:
        """Return the outputs that are wanted; ``describes`` is never set here.

        The tensors fit the signature: :func:`~atomr_infer.model.tensors.check_tensors`
        was called.  Sizes that belong together may still differ.

        Raises:
            InferenceError: it failed.

        Cancellation: stops the engine.
        """
        ...


@runtime_checkable
class Stepped(Protocol):
    """A runner that tells how far its engine is, so that it is found when it is stuck.

    Without it, an engine that reads a long prompt looks like one that stands still.
    """

    @property
    def steps(self) -> int:
        """How often its engine has made a token, or read a piece of a prompt.

        Where it writes none: how many of its runs have ended.  It must change at
        least so often as an engine does that is well; cheap, and asked for each second.
        """
        ...


def capabilities_of(runner: ModelRunner, model: str) -> Capabilities:
    """Return what ``model`` can do behind ``runner``."""
    # Not isinstance: it would look at every name of the protocol, each time.
    of_model: Callable[[str], Capabilities] | None
    of_model = getattr(runner, "capabilities_for", None)
    return runner.capabilities if of_model is None else of_model(model)


@runtime_checkable
class HasEndpoint(Protocol):
    """A plugin whose deployments ask a server that may be broken for all of them."""

    def endpoint(self, deployment: Deployment) -> str | None:
        """Return the address that the deployment asks, without any secret.

        Deployments of this plugin with the same address share one circuit
        breaker.

        Returns:
            None: there is nothing to share; it gets no breaker.
        """
        ...


@runtime_checkable
class Parametric(Protocol):
    """A plugin whose deployments write more behind its name."""

    @property
    def form(self) -> str:
        """How that is written, for lists: ``python:<module>:<attribute>``."""
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
