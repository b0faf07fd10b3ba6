"""A fake that speaks HTTP/2, before our own client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.cluster import Cluster
from atomr_infer.errors import InferenceError
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstreams.fake import FakeUpstream
from atomr_infer.testing.upstreams.serving import serve_upstream

if TYPE_CHECKING:
    from collections.abc import Sequence

ONCE = RetryPolicy(max_attempts=1)


def deployment(fake: FakeUpstream) -> Deployment:
    options = {"endpoint": fake.base_url, "http2": "prior-knowledge"}
    return Deployment(name="m", runtime="openai", options=options, retry=ONCE)


async def told(
    behaviours: Sequence[script.Behaviour],
) -> tuple[FakeUpstream, list[str]]:
    """Ask once for each behaviour, side by side; return what came of it, sorted."""
    fake = FakeUpstream(behaviours)
    answers: list[str] = []
    async with (
        serve_upstream(fake, http2=True),
        Cluster.connect("inproc://h2") as cluster,
    ):
        await cluster.deploy(deployment(fake))

        async def ask() -> None:
            try:
                answers.append((await cluster.chat("m", "one two")).text)
            except InferenceError as error:
                answers.append(error.kind)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for _ in behaviours:
                    nursery.start_soon(ask)
    return fake, sorted(answers)


async def test_answers_come_side_by_side_on_one_connection() -> None:
    happy = [script.Happy(text=f"answer {n}", delay_s=0.01) for n in range(5)]
    fake, answers = await told(happy)
    assert answers == [f"answer {n}" for n in range(5)]
    assert {request.connection for request in fake.requests} == {0}


async def test_answer_that_is_larger_than_the_window_arrives() -> None:
    large = "x" * 300_000
    _, answers = await told([script.Happy(text=large)])
    assert answers == [large]


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (script.CutMidStream(after=2), "stream_cut"),
        (script.CloseBeforeHeaders(), "stream_cut"),
        (script.server_error(), "upstream"),
        (script.rate_limited(), "rate_limited"),
    ],
)
async def test_fault_of_one_answer_is_not_one_of_its_neighbours(
    behaviour: script.Behaviour, kind: str
) -> None:
    happy = script.Happy(text="fine", delay_s=0.05)
    _, answers = await told([happy, behaviour, happy])
    assert sorted([kind, "fine", "fine"]) == answers


async def test_client_that_leaves_resets_its_stream_alone() -> None:
    fake = FakeUpstream([script.HangMidStream(after=1), script.Happy(text="fine")])
    async with (
        serve_upstream(fake, http2=True),
        Cluster.connect("inproc://h2") as cluster,
    ):
        await cluster.deploy(deployment(fake))
        with trio.move_on_after(0.2):
            await cluster.chat("m", "one two")
        with trio.fail_after(5):
            await fake.requests[0].client_left.wait()
        assert (await cluster.chat("m", "one two")).text == "fine"
        assert fake.connections == 1
