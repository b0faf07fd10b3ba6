"""The blocking facade: for scripts, notebooks and programs on another loop.

The same calls as :mod:`atomr_infer.cluster`, without ``await``::

    with Cluster.connect("inproc://app") as cluster:
        cluster.deploy(Deployment(name="tiny", runtime="mock"))
        print(cluster.chat("tiny", "hello").text)
        for chunk in cluster.stream("tiny", "hello"):
            print(chunk.text, end="")

The cluster runs in a thread of its own, with its own trio loop.  Every method
may be called from any other thread, several at once.  An asyncio program calls
them by ``asyncio.to_thread``: one called from a task would block its loop.

Ctrl-C in a call ends what the call asked for, before ``KeyboardInterrupt``
goes on; so a notebook's interrupted cell leaves no generation behind.

The cluster belongs to the process that opened it.  After ``os.fork`` (so also
in a ``multiprocessing`` worker of that kind) the child has no such thread:
there every call raises :class:`~atomr_infer.errors.NotReadyError`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, TypeVar, Unpack

import attrs
import trio

from atomr_infer import cluster as trio_cluster
from atomr_infer.errors import NotReadyError
from atomr_infer.model.batch import TokenChunk

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
        Mapping,
    )
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.cluster import ChatReply, Conversation, SamplingOptions
    from atomr_infer.config.gateway import GatewayOptions
    from atomr_infer.gateway.gateway import Gateway as TrioGateway
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.embeddings import Embeddings
    from atomr_infer.model.secret import Secret
    from atomr_infer.model.tensors import Inferred, Tensor
    from atomr_infer.serving.replicas.readiness import Readiness
    from atomr_infer.serving.replicas.replica import ReplicaState

T = TypeVar("T")

_CLOSED = "the cluster is closed"
_OTHER_PROCESS = (
    "the cluster belongs to another process, which forked this one; "
    "open one of its own here"
)


class Cluster:
    """A cluster in a thread; see :class:`atomr_infer.cluster.Cluster`.

    After the ``with`` block every method raises
    :class:`~atomr_infer.errors.NotReadyError`; so do calls that other threads
    have under way when the block is left.
    """

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._inner = loop.cluster

    @staticmethod
    @contextlib.contextmanager
    def connect(
        address: str, *, environ: Mapping[str, str] | None = None
    ) -> Iterator[Cluster]:
        """Open the cluster at ``address`` for the length of the block.

        Leaving the block, also by Ctrl-C, ends the requests, the gateways and
        the engines, and waits for that.

        The arguments are those of :meth:`atomr_infer.cluster.Cluster.connect`.

        Raises:
            ConfigError: the address is of another kind.
        """
        ready: Future[_Loop] = Future()
        ended: Future[None] = Future()
        run = partial(_run_loop, ready, ended, address, environ)
        thread = threading.Thread(target=run, name=f"atomr {address}")
        pid = os.getpid()
        thread.start()
        try:
            yield Cluster(ready.result())
        finally:
            # A child that leaves the block has no such thread, and the loop that
            # could be told to stop is its parent's.
            if os.getpid() == pid:
                # By a callback: a Ctrl-C may have come before the loop was ready.
                ready.add_done_callback(_ask_to_stop)
                thread.join()
                if ended.done():
                    ended.result()

    def deploy(
        self,
        deployment: Deployment,
        *,
        progress: Callable[[ReplicaState], None] | None = None,
    ) -> None:
        """Start serving a deployment, and wait until it serves.

        ``progress`` is called in the cluster's thread; it must not call the cluster.

        Raises:
            ConfigError: it cannot work as written; nothing was changed.
            InferenceError: it could not be started; it was removed again.
        """
        self._loop.run(partial(self._inner.deploy, deployment, progress=progress))

    def change(self, deployment: Deployment) -> None:
        """Take another deployment for the one of its name, which serves on."""
        self._loop.run(partial(self._inner.change, deployment))

    def undeploy(self, name: str) -> bool:
        """Stop serving a deployment; its running requests end with an error.

        Returns:
            False when there is no deployment of that name.
        """
        return self._loop.run(partial(self._inner.undeploy, name))

    def models(self) -> tuple[str, ...]:
        """The public model names that are served, patterns included."""
        return self._loop.run_sync(self._inner.models)

    def readiness(self) -> Readiness:
        """Whether everything that was deployed serves."""
        return self._loop.run_sync(self._inner.readiness)

    def replicas(self, deployment: str) -> tuple[ReplicaState, ...]:
        """The replicas of a deployment: phase, load, engine process."""
        return self._loop.run(partial(self._inner.replicas, deployment))

    def chat(
        self,
        model: str,
        conversation: Conversation,
        **sampling: Unpack[SamplingOptions],
    ) -> ChatReply:
        """Return the whole answer to a conversation, or raise ``InferenceError``."""
        asked = partial(self._inner.chat, model, conversation, **sampling)
        return self._loop.run(asked)

    def embed(
        self, model: str, *texts: str, dimensions: int | None = None
    ) -> Embeddings:
        """Return a vector for each text, in order, or raise ``InferenceError``."""
        asked = partial(self._inner.embed, model, *texts, dimensions=dimensions)
        return self._loop.run(asked)

    def infer(
        self, model: str, *inputs: Tensor, outputs: Iterable[str] = ()
    ) -> Inferred:
        """Return what a model makes of tensors, or raise ``InferenceError``."""
        asked = partial(self._inner.infer, model, *inputs, outputs=outputs)
        return self._loop.run(asked)

    def stream(
        self,
        model: str,
        conversation: Conversation,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[TokenChunk]:
        """Give the answer's chunks as they are made.

        The generation starts with the first ``next``.  Closing the iterator
        early (``close()``, or leaving a ``for`` loop and dropping it) ends it;
        after ``close()`` the engine is free.  An iterator that the garbage
        collector finds in a loop's own thread ends its generation a moment later.

        Raises:
            InferenceError: from the iteration, when the request fails.
        """
        pull = _Pull(partial(self._inner.stream, model, conversation, **sampling))
        try:
            self._loop.run_sync(pull.start)
            while (chunk := self._loop.run(pull.next)) is not None:
                yield chunk
        finally:
            self._loop.end(pull)

    def run(self, work: Callable[[trio_cluster.Cluster], Awaitable[T]]) -> T:
        """Return what an async function makes of the trio cluster, in its thread.

        For what has no call here: ``run(lambda c: ask(c.lookup("n"), "hi"))``.
        """
        return self._loop.run(partial(work, self._inner))

    def serve(
        self,
        bind: str = "127.0.0.1:8080",
        *,
        keys: Iterable[Secret] = (),
        **options: Unpack[GatewayOptions],
    ) -> Gateway:
        """Serve over HTTP in the background, as the trio ``Cluster.serve`` does.

        Raises:
            ConfigError: the address cannot be bound, or a value is not allowed.
        """
        opened = self._loop.run(partial(self._inner.serve, bind, keys=keys, **options))
        return Gateway(self._loop, opened)


class Gateway:
    """One address that a cluster serves; it ends with the cluster."""

    def __init__(self, loop: _Loop, inner: TrioGateway) -> None:
        self._loop = loop
        self._inner = inner

    @property
    def url(self) -> str:
        """Its address: ``http://host:port``."""
        return self._inner.url

    def drain(self, timeout_s: float, *, grace_s: float = 0.0) -> None:
        """Stop accepting, let running answers finish, tell the others, close.

        ``timeout_s`` bounds the answers; requests are still taken for ``grace_s``.
        """
        self._loop.run(partial(self._drain, timeout_s, grace_s))

    async def _drain(self, timeout_s: float, grace_s: float) -> None:
        with self._loop.cluster.at_home():
            await self._inner.drain(timeout_s, grace_s=grace_s)


@attrs.frozen(eq=False)
class _Loop:
    """The cluster's thread, as the other threads reach it."""

    cluster: trio_cluster.Cluster
    token: trio.lowlevel.TrioToken
    stop: trio.Event
    pid: int = attrs.field(factory=os.getpid)

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work`` in the loop and return what it returns.

        It is cancelled when this thread stops waiting for it.
        """
        self._check_process()
        scope = trio.CancelScope()
        try:
            return trio.from_thread.run(
                partial(_within, scope, work), trio_token=self.token
            )
        except (trio.RunFinishedError, trio.Cancelled) as error:
            raise NotReadyError(_CLOSED) from error
        except BaseException:
            # Ctrl-C, or whatever a signal handler raised here; after an error
            # of the work itself there is nothing left to cancel.
            with contextlib.suppress(trio.RunFinishedError):
                self.token.run_sync_soon(scope.cancel)
            raise

    def run_sync(self, work: Callable[[], T]) -> T:
        """Call ``work`` in the loop and return what it returns."""
        self._check_process()
        try:
            return trio.from_thread.run_sync(work, trio_token=self.token)
        except trio.RunFinishedError as error:
            raise NotReadyError(_CLOSED) from error

    def end(self, pull: _Pull) -> None:
        """End a stream, and wait for that where this thread may wait."""
        # When the cluster is closed, so is the generation; and a child process
        # leaves its parent's alone.
        with contextlib.suppress(NotReadyError, trio.RunFinishedError):
            if trio.lowlevel.in_trio_run():
                # The garbage collector runs in whatever thread comes along; a
                # loop that waited here would wait for itself.
                self._check_process()
                self.token.run_sync_soon(pull.cancel)
            else:
                self.run(pull.stop)

    def _check_process(self) -> None:
        if os.getpid() != self.pid:
            raise NotReadyError(_OTHER_PROCESS)


async def _within(scope: trio.CancelScope, work: Callable[[], Awaitable[T]]) -> T:
    with scope:
        return await work()
    raise AssertionError("only a thread that waits no longer cancels this scope")


def _run_loop(
    ready: Future[_Loop],
    ended: Future[None],
    address: str,
    environ: Mapping[str, str] | None,
) -> None:
    """Run the cluster in this thread; what it raises goes to who connected."""
    try:
        trio.run(_hold, ready, address, environ)
    except BaseException as error:  # noqa: BLE001 - raised by connect()
        (ended if ready.done() else ready).set_exception(error)
    else:
        ended.set_result(None)


async def _hold(
    ready: Future[_Loop], address: str, environ: Mapping[str, str] | None
) -> None:
    token = trio.lowlevel.current_trio_token()
    stop = trio.Event()
    async with trio_cluster.Cluster.connect(address, environ=environ) as cluster:
        ready.set_result(_Loop(cluster, token, stop))
        await stop.wait()


def _ask_to_stop(ready: Future[_Loop]) -> None:
    if ready.exception() is None:
        loop = ready.result()
        with contextlib.suppress(trio.RunFinishedError):
            loop.token.run_sync_soon(loop.stop.set)


class _Pull:
    """A stream that one task runs and another thread pulls from.

    The stream's block must be entered and left by one task, and each call from
    a thread is a task of its own; so the block lives in a third one.  It is a
    system task: when the cluster closes, the cluster ends the stream, and the
    reader hears why.
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
        self._started = False
        self._done = trio.Event()
        self._error: Exception | None = NotReadyError(_CLOSED)

    def start(self) -> None:
        """Start the stream's own task."""
        self._started = True
        trio.lowlevel.spawn_system_task(self._pump)

    async def _pump(self) -> None:
        try:
            with self._scope, self._send:
                async with self._open_stream() as chunks:
                    async for chunk in chunks:
                        await self._send.send(chunk)
                    self._error = None
        except Exception as error:  # noqa: BLE001 - raised by next()
            self._error = error
        finally:
            self._done.set()

    async def next(self) -> TokenChunk | None:
        """Return the next chunk; None after the last one."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            await self._done.wait()
            if self._error is not None:
                raise self._error from self._error.__cause__
            return None

    def cancel(self) -> None:
        """End the generation, soon."""
        self._scope.cancel()

    async def stop(self) -> None:
        """End the generation, and wait until the engine is free."""
        self.cancel()
        # A Ctrl-C may have come before the start was asked for.
        if self._started:
            await self._done.wait()
