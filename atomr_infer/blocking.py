"""The blocking facade: for scripts, notebooks and programs on another loop.

The same calls as :mod:`atomr_infer.cluster`, without ``await``::

    with Cluster.connect("inproc://app") as cluster:
        cluster.deploy(Deployment(name="tiny", runtime="mock"))
        print(cluster.chat("tiny", "hello").text)
        for chunk in cluster.stream("tiny", "hello"):
            print(chunk.text, end="")

The cluster runs in a thread of its own, with its own trio loop.  Every method
may be called from any other thread, several at once; calling one from an
asyncio or trio task blocks that loop.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, TypeVar, Unpack

import attrs
import trio

from atomr_infer import cluster as trio_cluster
from atomr_infer.model.batch import TokenChunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.cluster import ChatReply, Conversation, SamplingOptions
    from atomr_infer.gateway.gateway import Gateway
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.application import Readiness
    from atomr_infer.serving.replica import ReplicaState

T = TypeVar("T")


class Cluster:
    """A cluster in a thread; see :class:`atomr_infer.cluster.Cluster`."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._inner = loop.cluster

    @staticmethod
    @contextlib.contextmanager
    def connect(
        address: str, *, environ: Mapping[str, str] | None = None
    ) -> Iterator[Cluster]:
        """Open the cluster at ``address`` for the length of the block.

        Raises:
            ConfigError: the address is of a kind that is not there.
        """
        ready: Future[_Loop] = Future()
        run = partial(_run_loop, ready, address, environ)
        thread = threading.Thread(target=run, name=f"atomr {address}")
        thread.start()
        try:
            loop = ready.result()
            try:
                yield Cluster(loop)
            finally:
                loop.token.run_sync_soon(loop.stop.set)
        finally:
            thread.join()

    def deploy(
        self,
        deployment: Deployment,
        *,
        progress: Callable[[ReplicaState], None] | None = None,
    ) -> None:
        """Start serving a deployment, and wait until it serves.

        ``progress`` is called in the cluster's thread.
        """
        self._run(partial(self._inner.deploy, deployment, progress=progress))

    def undeploy(self, name: str) -> bool:
        """Stop serving a deployment; False when there is none of that name."""
        return self._run(partial(self._inner.undeploy, name))

    def models(self) -> tuple[str, ...]:
        """The public model names that are served, patterns included."""
        return self._run_sync(self._inner.models)

    def readiness(self) -> Readiness:
        """Whether everything that was deployed serves."""
        return self._run_sync(self._inner.readiness)

    def replicas(self, deployment: str) -> tuple[ReplicaState, ...]:
        """The replicas of a deployment."""
        return self._run(partial(self._inner.replicas, deployment))

    def chat(
        self,
        model: str,
        conversation: Conversation,
        **sampling: Unpack[SamplingOptions],
    ) -> ChatReply:
        """Return the whole answer to a conversation."""
        return self._run(partial(self._inner.chat, model, conversation, **sampling))

    def stream(
        self,
        model: str,
        conversation: Conversation,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[TokenChunk]:
        """Give the answer's chunks as they are made.

        Closing the iterator early (``close()``, or leaving a ``for`` loop and
        dropping it) ends the generation.
        """
        pull = _Pull(partial(self._inner.stream, model, conversation, **sampling))
        self._run_sync(partial(self._loop.nursery.start_soon, pull.pump))
        try:
            while (chunk := self._run(pull.next)) is not None:
                yield chunk
        finally:
            # The loop may be gone: then so is the generation.
            with contextlib.suppress(trio.RunFinishedError):
                self._run(pull.stop)

    def serve(self, bind: str = "127.0.0.1:8080") -> Gateway:
        """Serve the deployments over HTTP, in the background."""
        return self._run(partial(self._inner.serve, bind))

    def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        return trio.from_thread.run(work, trio_token=self._loop.token)

    def _run_sync(self, work: Callable[[], T]) -> T:
        return trio.from_thread.run_sync(work, trio_token=self._loop.token)


@attrs.frozen(eq=False)
class _Loop:
    """What the cluster's thread hands out once it runs."""

    cluster: trio_cluster.Cluster
    token: trio.lowlevel.TrioToken
    nursery: trio.Nursery
    stop: trio.Event


def _run_loop(
    ready: Future[_Loop], address: str, environ: Mapping[str, str] | None
) -> None:
    """Run the cluster in this thread; every failure goes to ``ready`` or the log."""
    try:
        trio.run(_hold, ready, address, environ)
    except BaseException as error:
        if ready.done():
            raise  # shown by threading's own hook, with its traceback
        ready.set_exception(error)


async def _hold(
    ready: Future[_Loop], address: str, environ: Mapping[str, str] | None
) -> None:
    token = trio.lowlevel.current_trio_token()
    stop = trio.Event()
    async with (
        trio_cluster.Cluster.connect(address, environ=environ) as cluster,
        trio.open_nursery() as nursery,
    ):
        ready.set_result(_Loop(cluster, token, nursery, stop))
        await stop.wait()
        nursery.cancel_scope.cancel()


class _Pull:
    """A stream that one task runs and another thread pulls from.

    The stream's block must be entered and left by one task, and each call from
    a thread is a task of its own; so the block lives in a third one.
    """

    def __init__(
        self,
        open_stream: Callable[
            [], AbstractAsyncContextManager[AsyncIterator[TokenChunk]]
        ],
    ) -> None:
        self._open_stream = open_stream
        self._send, self._receive = trio.open_memory_channel[TokenChunk](0)
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self._error: Exception | None = None

    async def pump(self) -> None:
        try:
            with self._scope, self._send:
                async with self._open_stream() as chunks:
                    async for chunk in chunks:
                        await self._send.send(chunk)
        except Exception as error:  # noqa: BLE001 - raised by next()
            self._error = error
        finally:
            self._done.set()

    async def next(self) -> TokenChunk | None:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            await self._done.wait()
            if self._error is not None:
                raise self._error from self._error.__cause__
            return None

    async def stop(self) -> None:
        self._scope.cancel()
        await self._done.wait()
