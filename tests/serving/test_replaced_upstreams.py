"""A deployment goes from one provider to another while streams run."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment, RetryPolicy, Serving
from atomr_infer.testing.upstream import open_openai_upstream
from atomr_infer.testing.upstream_script import Happy
from tests.serving.conftest import until

if TYPE_CHECKING:
    from atomr_infer.testing.upstream import FakeUpstream

WORDS = tuple(f"{n} " for n in range(8))
SLOW = Happy(tokens=WORDS, delay_s=0.01)


def at(upstream: FakeUpstream, number: int = 0) -> Deployment:
    return Deployment(
        name="m",
        runtime="openai",
        model=f"model-{number}",
        options={"endpoint": upstream.base_url},
        retry=RetryPolicy(max_attempts=1),
        serving=Serving(max_concurrency=3),
    )


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    "count", [10, pytest.param(100, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.slow
async def test_no_stream_is_cut_and_nothing_is_left(count: int) -> None:
    async with (
        open_openai_upstream(otherwise=SLOW) as one,
        open_openai_upstream(otherwise=SLOW) as two,
        Cluster.connect("inproc://test") as cluster,
    ):
        await cluster.deploy(at(one))
        gc.collect()
        files, tasks = open_files(), _tasks()
        texts: list[str] = []
        done = False

        async def ask() -> None:
            while not done:
                async with cluster.stream("m", "count") as chunks:
                    texts.append("".join([chunk.text async for chunk in chunks]))

        async with trio.open_nursery() as nursery:
            for _ in range(5):  # more than run at once: some wait in the queue
                nursery.start_soon(ask)
            for number in range(1, count + 1):
                upstream = (one, two)[number % 2]
                await cluster.replace(at(upstream, number))
                seen = len(upstream.requests)
                with trio.fail_after(30):
                    while len(upstream.requests) == seen:  # noqa: ASYNC110 - see until
                        await trio.sleep(0.005)
            done = True
        assert set(texts) == {"".join(WORDS)}
        # Each provider was asked for what was its model, and for nothing else.
        for upstream, odd in ((one, 0), (two, 1)):
            asked = {request.json["model"] for request in upstream.requests}
            assert {int(name.rpartition("-")[2]) % 2 for name in asked} == {odd}
        (replica,) = await cluster.replicas("m")
        await until(lambda: not replica.outstanding)
        await until(lambda: _tasks() <= tasks + 4)
        gc.collect()
        # What is kept open are connections of the client that serves now.
        assert open_files() <= files + 2 * 3


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living
