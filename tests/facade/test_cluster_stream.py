"""`Cluster.stream`: what the block's end means, whichever way it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.cluster import Cluster
from atomr_infer.errors import NotReadyError, UpstreamError
from atomr_infer.model.batch import FinishReason, TokenChunk, Usage
from atomr_infer.model.deployment import Deployment, RetryPolicy

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr_infer.model.deployment import OptionValue


def mock(**options: OptionValue) -> Deployment:
    return Deployment(
        name="m", runtime="mock", options=options, retry=RetryPolicy(max_attempts=1)
    )


async def running(cluster: Cluster) -> int:
    await trio.testing.wait_all_tasks_blocked()
    [replica] = await cluster.replicas("m")
    return replica.running


async def test_chunks_come_as_they_are_made(autojump_clock: MockClock) -> None:
    arrived: list[tuple[float, str]] = []
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(delay_s=1.0))
        start = trio.current_time()
        async with cluster.stream("m", "one two") as chunks:
            whole = []
            async for chunk in chunks:
                arrived.append((trio.current_time() - start, chunk.text))
                whole.append(chunk)

    assert arrived == [(1.0, "one"), (2.0, " two"), (2.0, ""), (2.0, "")]
    assert whole[2:] == [
        TokenChunk(finish_reason=FinishReason.STOP),
        TokenChunk(usage=Usage(input_uncached=2, output_text=2)),
    ]


async def test_leaving_early_frees_the_engine() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(hang_after=1))
        async with cluster.stream("m", "one two") as chunks:
            assert await anext(chunks) == TokenChunk(text="one")
            assert await running(cluster) == 1

        assert await running(cluster) == 0


async def test_a_reader_that_is_too_late_gets_an_error_and_not_a_short_answer() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock())
        async with cluster.stream("m", "one two") as chunks:
            await anext(chunks)

        with pytest.raises(trio.ClosedResourceError):
            await anext(chunks)


async def test_what_the_block_raises_arrives_as_it_is() -> None:
    raised = ZeroDivisionError("mine")
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(hang_after=1))
        with pytest.raises(ZeroDivisionError) as caught:
            async with cluster.stream("m", "one two") as chunks:
                await anext(chunks)
                raise raised

        assert caught.value is raised
        assert (raised.__cause__, raised.__context__) == (None, None)
        assert await running(cluster) == 0


async def test_a_group_that_the_block_raises_arrives_as_it_is() -> None:
    raised = ExceptionGroup("mine", [ValueError("a"), ValueError("b")])
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock())
        with pytest.raises(ExceptionGroup) as caught:
            async with cluster.stream("m", "one two"):
                raise raised

    assert caught.value is raised


async def test_what_the_block_raises_wins_over_a_cancellation() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(hang_after=0))
        with trio.CancelScope() as scope, pytest.raises(ZeroDivisionError):
            async with cluster.stream("m", "one two"):
                scope.cancel()
                raise ZeroDivisionError

        assert not scope.cancelled_caught


async def test_the_answer_can_be_read_to_its_end_by_hand() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(tokens=0))
        with pytest.raises(StopAsyncIteration):
            async with cluster.stream("m", "x") as chunks:
                while True:
                    await anext(chunks)


async def test_a_request_that_fails_raises_from_the_iteration() -> None:
    texts: list[str] = []
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(fail_after=1))
        with pytest.raises(UpstreamError, match="the mock fails"):
            async with cluster.stream("m", "one two") as chunks:
                async for chunk in chunks:
                    texts.append(chunk.text)

    assert texts == ["one"]


async def test_a_failure_that_nobody_reads_does_not_leave_the_block() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(fail_after=0))
        async with cluster.stream("m", "one two"):
            await trio.testing.wait_all_tasks_blocked()


async def test_cancellation_ends_the_generation_and_passes_on(
    autojump_clock: MockClock,
) -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(hang_after=1))
        with trio.move_on_after(1) as scope:
            async with cluster.stream("m", "one two") as chunks:
                async for _ in chunks:
                    pass

        assert scope.cancelled_caught
        assert await running(cluster) == 0


async def test_a_slow_reader_holds_the_engine_back(autojump_clock: MockClock) -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(tokens=5))
        texts = []
        async with cluster.stream("m", "a") as chunks:
            async for chunk in chunks:
                await trio.sleep(100)  # longer than any bound on silence in sum
                texts.append(chunk.text)

    assert texts == ["a", " a", " a", " a", " a", "", ""]


async def test_a_stream_in_the_middle_of_which_the_cluster_closes_fails() -> None:
    failures: list[str] = []

    async def read(cluster: Cluster) -> None:
        try:
            async with cluster.stream("m", "one two") as chunks:
                async for _ in chunks:
                    pass
        except NotReadyError as error:
            failures.append(str(error))

    async with (
        trio.open_nursery() as nursery,
        Cluster.connect("inproc://app") as cluster,
    ):
        await cluster.deploy(mock(hang_after=1))
        nursery.start_soon(read, cluster)
        await trio.testing.wait_all_tasks_blocked()

    assert failures == ["the server is shutting down"]


async def test_streams_run_side_by_side() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock())
        async with (
            cluster.stream("m", "one two") as first,
            cluster.stream("m", "three four") as second,
        ):
            texts = [
                (a.text, b.text)
                for a, b in [
                    (await anext(first), await anext(second)) for _ in range(2)
                ]
            ]

    assert texts == [("one", "three"), (" two", " four")]
