"""An answer that was broken off and made again says so, and how often it was tried."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.failover import OnCut
from tests.gateway.http import chat

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve

B = Deployment(name="b", runtime="mock")


def breaks(on_cut: OnCut = OnCut.ERROR) -> Deployment:
    return Deployment(
        name="m",
        runtime="mock",
        options={"fail_after": 1, "reply": "one two three"},
        fallbacks=["b"],
        retry=RetryPolicy(max_attempts=1),
        on_cut=on_cut,
    )


@pytest.mark.parametrize(
    ("on_cut", "stream"), [(OnCut.ERROR, False), (OnCut.BUFFER, True)]
)
async def test_an_answer_that_was_held_tells_of_its_recovery_in_a_header(
    serve: Serve, on_cut: OnCut, stream: bool
) -> None:
    async with serve(B, breaks(on_cut)) as running:
        answer = await chat(running.port, stream=stream)
    assert answer.status == 200
    names = ("deployment", "attempts", "recovered")
    assert [answer.headers[f"x-atomr-{name}"] for name in names] == ["b", "2", "true"]


async def test_an_answer_that_did_not_break_says_nothing_of_it(serve: Serve) -> None:
    async with serve(Deployment(name="m", runtime="mock")) as running:
        answer = await chat(running.port)
    assert "x-atomr-recovered" not in answer.headers


async def test_by_default_a_stream_that_breaks_ends_with_an_error(
    serve: Serve,
) -> None:
    async with serve(B, breaks()) as running:
        answer = await chat(running.port, stream=True)
    last = answer.body.strip().split(b"\n\n")[-1]
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert error["message"] == "the mock fails as its script says"
    assert b"[DONE]" not in answer.body
