"""`atomr_infer.blocking`: the same calls from plain threads, in real time."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import attrs
import pytest
import trio

from atomr_infer.actors import ask
from atomr_infer.blocking import Cluster
from atomr_infer.errors import (
    ConfigError,
    ModelNotFoundError,
    NotReadyError,
    PluginError,
    UpstreamError,
)
from atomr_infer.model.batch import FinishReason, Usage
from atomr_infer.model.deployment import Deployment, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from atomr_infer import cluster as trio_cluster
    from atomr_infer.cluster import ChatReply
    from atomr_infer.model.batch import TokenChunk
    from atomr_infer.model.deployment import OptionValue
    from atomr_infer.serving.replicas.replica import ReplicaState
    from tests.facade.waiting import WaitingPlugin


def mock(name: str = "m", **options: OptionValue) -> Deployment:
    return Deployment(
        name=name, runtime="mock", options=options, retry=RetryPolicy(max_attempts=1)
    )


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    left = [t.name for t in threading.enumerate() if t.name.startswith("atomr ")]
    assert left == []


@contextmanager
def open_cluster(*deployments: Deployment) -> Iterator[Cluster]:
    with Cluster.connect("inproc://app") as cluster:
        for deployment in deployments:
            cluster.deploy(deployment)
        yield cluster


def running(cluster: Cluster) -> int:
    [replica] = cluster.replicas("m")
    return replica.running


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does and does not tell."""
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen within 10 s")


@contextmanager
def no_automatic_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def drop_in_a_cycle(chunks: Iterator[TokenChunk]) -> None:
    """Begin a stream, and leave it to the garbage collector.

    A notebook's kept traceback makes such cycles.
    """
    next(chunks)
    cycle: list[object] = [chunks]
    cycle.append(cycle)


@contextmanager
def interrupted_when(condition: Callable[[], bool]) -> Iterator[None]:
    """Send this process a Ctrl-C once ``condition`` holds, and expect it to arrive."""

    def watch() -> None:
        wait_for(condition)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=watch)
    with pytest.raises(KeyboardInterrupt):
        watcher.start()
        yield
    watcher.join()


# --- calls -------------------------------------------------------------------------


def test_what_has_no_call_is_done_with_the_cluster_in_its_thread() -> None:
    async def twice(inner: trio_cluster.Cluster) -> str:
        ref = inner.lookup("m")
        return await ask(ref, "one") + await ask(ref, "two")

    with open_cluster(mock()) as cluster:
        assert cluster.run(twice) == "onetwo"
        with pytest.raises(ModelNotFoundError):
            cluster.run(lambda inner: ask(inner.lookup("n"), "one"))


def test_a_deployment_is_changed_while_it_serves() -> None:
    with open_cluster(mock()) as cluster:
        cluster.change(attrs.evolve(mock(), serves=("m", "alias")))
        assert cluster.models() == ("m", "alias")
        assert cluster.chat("alias", "one").text == "one"


def test_deploy_chat_stream_and_undeploy() -> None:
    with open_cluster(mock()) as cluster:
        reply = cluster.chat("m", "one two three", max_tokens=2)
        texts = [chunk.text for chunk in cluster.stream("m", "one two")]

        assert (reply.text, reply.finish_reason) == ("one two", FinishReason.LENGTH)
        assert reply.usage == Usage(input_uncached=3, output_text=2)
        assert texts == ["one", " two", "", ""]
        assert cluster.models() == ("m",)
        assert cluster.readiness().ready
        assert cluster.undeploy("m")
        assert cluster.models() == ()


def test_a_bad_address_is_refused_and_leaves_no_thread() -> None:
    with pytest.raises(ConfigError, match="use inproc://NAME"), Cluster.connect("app"):
        pass


def test_errors_are_raised_in_the_calling_thread() -> None:
    with open_cluster(mock(fail_after=1)) as cluster:
        with pytest.raises(PluginError, match="did you mean 'mock'"):
            cluster.deploy(Deployment(name="n", runtime="mok"))
        with pytest.raises(ModelNotFoundError):
            cluster.chat("n", "hello")
        with pytest.raises(UpstreamError, match="the mock fails"):
            cluster.chat("m", "one two")
        with pytest.raises(ValueError, match="at least one message"):
            cluster.chat("m", [])


def test_a_stream_that_fails_raises_behind_what_came() -> None:
    texts: list[str] = []
    with (
        open_cluster(mock(fail_after=1)) as cluster,
        pytest.raises(UpstreamError, match="the mock fails"),
    ):
        for chunk in cluster.stream("m", "one two"):
            texts.append(chunk.text)

    assert texts == ["one"]


def test_what_the_block_raises_leaves_it_as_it_is() -> None:
    raised = ZeroDivisionError("mine")
    with pytest.raises(ZeroDivisionError) as caught, open_cluster(mock()):
        raise raised

    assert caught.value is raised


def test_progress_is_told_from_the_clusters_thread(waiting: WaitingPlugin) -> None:
    threads: set[str] = set()

    def show(_: ReplicaState) -> None:
        threads.add(threading.current_thread().name)

    with open_cluster() as cluster:
        slow = Deployment(name="w", runtime="waiting", options={"load_s": 0.05})
        cluster.deploy(slow, progress=show)

    assert threads == {"atomr inproc://app"}


def test_a_call_from_the_clusters_own_thread_is_refused_and_does_not_hang(
    waiting: WaitingPlugin,
) -> None:
    refused: list[str] = []

    with open_cluster() as cluster:

        def ask_back(_: ReplicaState) -> None:
            try:
                cluster.models()
            except RuntimeError as error:
                refused.append(str(error))

        slow = Deployment(name="w", runtime="waiting", options={"load_s": 0.05})
        cluster.deploy(slow, progress=ask_back)

    assert set(refused) == {"this is a blocking function; call it from a thread"}


# --- threads -----------------------------------------------------------------------


def test_several_threads_ask_at_once() -> None:
    def ask(number: int) -> str:
        if number % 2:
            return cluster.chat("m", f"number {number}").text
        return "".join(c.text for c in cluster.stream("m", f"number {number}"))

    with open_cluster(mock(delay_s=0.001)) as cluster, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(40)))

    assert answers == [f"number {number}" for number in range(40)]


def test_a_thread_that_waits_for_an_answer_hears_that_the_cluster_closes() -> None:
    with ThreadPoolExecutor(2) as pool:
        with open_cluster(mock(hang_after=1)) as cluster:
            chat = pool.submit(cluster.chat, "m", "one two")
            stream = pool.submit(list, cluster.stream("m", "one two"))
            wait_for(lambda: running(cluster) == 2)

        failures = [chat.exception(10), stream.exception(10)]

    assert [type(failure) for failure in failures] == [NotReadyError, NotReadyError]


def test_a_stream_that_nobody_reads_does_not_keep_the_cluster_open() -> None:
    with open_cluster(mock()) as cluster:
        chunks = cluster.stream("m", "one two three")
        assert next(chunks).text == "one"

    with pytest.raises(NotReadyError):
        list(chunks)


def test_a_closed_cluster_refuses_every_call() -> None:
    with open_cluster(mock()) as cluster:
        pass

    for call in (cluster.models, lambda: cluster.chat("m", "hello")):
        with pytest.raises(NotReadyError, match="the cluster is closed"):
            call()
    with pytest.raises(NotReadyError, match="the cluster is closed"):
        next(cluster.stream("m", "hello"))


# --- leaving early -----------------------------------------------------------------


def test_closing_a_stream_frees_the_engine() -> None:
    with open_cluster(mock(hang_after=1)) as cluster:
        chunks = cluster.stream("m", "one two")
        assert next(chunks).text == "one"
        assert running(cluster) == 1
        chunks.close()  # type: ignore[attr-defined]

        assert running(cluster) == 0


def test_breaking_out_of_a_loop_frees_the_engine() -> None:
    with open_cluster(mock(hang_after=1)) as cluster:
        for _ in cluster.stream("m", "one two"):
            break

        assert running(cluster) == 0


def test_a_dropped_stream_ends_when_the_clusters_own_thread_collects_it(
    waiting: WaitingPlugin,
) -> None:
    def collect(_: ReplicaState) -> None:
        gc.collect()

    with open_cluster(mock(hang_after=1)) as cluster, no_automatic_collection():
        drop_in_a_cycle(cluster.stream("m", "one two"))
        assert running(cluster) == 1
        slow = Deployment(name="w", runtime="waiting", options={"load_s": 0.05})
        cluster.deploy(slow, progress=collect)

        wait_for(lambda: running(cluster) == 0)


def test_a_stream_that_was_never_begun_asks_nothing() -> None:
    with open_cluster(mock(hang_after=0)) as cluster:
        chunks = cluster.stream("m", "one two")

        assert running(cluster) == 0
        chunks.close()  # type: ignore[attr-defined]


def test_ctrl_c_in_a_chat_ends_the_generation() -> None:
    with open_cluster(mock(hang_after=0)) as cluster:
        with interrupted_when(lambda: running(cluster) == 1):
            cluster.chat("m", "hello")

        wait_for(lambda: running(cluster) == 0)


def test_ctrl_c_in_a_stream_ends_the_generation() -> None:
    with open_cluster(mock(hang_after=1)) as cluster:
        with interrupted_when(lambda: running(cluster) == 1):
            for _ in cluster.stream("m", "one two"):
                pass

        assert running(cluster) == 0


def test_ctrl_c_in_the_block_closes_the_cluster() -> None:
    inside = threading.Event()
    with interrupted_when(inside.is_set), open_cluster(mock(hang_after=0)) as cluster:
        inside.set()
        cluster.chat("m", "hello")

    with pytest.raises(NotReadyError, match="the cluster is closed"):
        cluster.models()


# --- another process ---------------------------------------------------------------

_FORK = """
import os, signal, sys
from atomr_infer.blocking import Cluster
from atomr_infer.errors import NotReadyError
from atomr_infer.model.deployment import Deployment

def refused(call):
    try:
        call()
    except NotReadyError as error:
        return str(error).startswith("the cluster belongs to another process")
    return False

with Cluster.connect("inproc://app") as cluster:
    cluster.deploy(Deployment(name="m", runtime="mock"))
    begun = cluster.stream("m", "one two three")
    next(begun)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        calls = (
            cluster.models,
            lambda: cluster.chat("m", "hello"),
            lambda: next(cluster.stream("m", "hello")),
            lambda: next(begun),
        )
        sys.exit(40 + sum(refused(call) for call in calls))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("the child ended with", status)
    print("".join(chunk.text for chunk in begun))
"""


def test_a_forked_child_is_refused_and_leaves_the_block_at_once() -> None:
    # In a program of its own: newer Pythons warn of a fork beside threads.
    command = [sys.executable, "-W", "ignore", "-c", _FORK]
    ran = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60
    )

    assert (ran.stdout, ran.stderr) == ("the child ended with 44\n two three\n", "")


# --- beside other loops ------------------------------------------------------------


def test_an_asyncio_program_asks_from_threads() -> None:
    async def main(cluster: Cluster) -> list[ChatReply]:
        asked = (asyncio.to_thread(cluster.chat, "m", f"number {n}") for n in range(4))
        return await asyncio.gather(*asked)

    with open_cluster(mock()) as cluster:
        replies = asyncio.run(main(cluster))

    assert [reply.text for reply in replies] == [f"number {n}" for n in range(4)]


async def test_a_trio_program_may_ask_from_threads_too() -> None:
    def session() -> str:
        with open_cluster(mock()) as cluster:
            return cluster.chat("m", "hello").text

    assert await trio.to_thread.run_sync(session) == "hello"


# --- serving -----------------------------------------------------------------------


def get(url: str) -> Any:
    with urlopen(url) as answer:  # a URL of ours
        return answer.status


def test_a_gateway_serves_until_it_is_drained() -> None:
    with open_cluster(mock()) as cluster:
        gateway = cluster.serve("127.0.0.1:0")
        assert get(f"{gateway.url}/v1/models") == 200
        gateway.drain(5)

        with pytest.raises(OSError, match="refused"):
            get(f"{gateway.url}/v1/models")


def test_closing_the_cluster_closes_its_gateways() -> None:
    with open_cluster(mock()) as cluster:
        gateway = cluster.serve("127.0.0.1:0")

    with pytest.raises(OSError, match="refused"):
        get(f"{gateway.url}/v1/models")


def test_an_address_that_is_none_is_refused() -> None:
    with (
        open_cluster() as cluster,
        pytest.raises(ConfigError, match="is not an address such as"),
    ):
        cluster.serve("8080")
