"""Deployments that answer for each other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr_infer.errors import (
    ContentFilterError,
    InferenceError,
    StreamCutError,
    UpstreamError,
)
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.serving.requests.whole_calls import embed
from tests.pipeline.conftest import Heard, OpenTree, Tree, model

if TYPE_CHECKING:
    from trio.testing import MockClock


def pool(*members: Any, **options: Any) -> Deployment:
    options = {"policy": "round_robin", **options}
    return Deployment(
        name="auto", runtime="pool", options={"members": list(members), **options}
    )


def asked(tree: Tree) -> dict[str, int]:
    return {name: len(runner.batches) for name, runner in tree.runners.items()}


async def test_members_are_asked_by_turns(open_tree: OpenTree) -> None:
    async with open_tree(model("a"), model("b"), pool("a", "b")) as tree:
        verdicts = [(await tree.ask()).verdicts for _ in range(4)]
        assert asked(tree) == {"a": 2, "b": 2}
        # The pool costs nothing itself.
        assert tree.ledger() == [("a", 6), ("b", 6)] * 2
    assert verdicts == [["a"], ["b"], ["a"], ["b"]]


async def test_who_is_busy_is_not_asked_while_another_one_is_free(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    slow, quick = model("slow", delay_s=1.0), model("quick")
    members = pool("slow", "quick", policy="least_loaded")
    async with open_tree(slow, quick, members) as tree:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.ask)
            await trio.sleep(0.5)
            for _ in range(3):
                await tree.ask()
        assert asked(tree) == {"slow": 1, "quick": 3}


async def test_another_one_answers_for_who_fails_and_who_fails_too_often_rests(
    open_tree: OpenTree, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    members = pool("bad", "good", ejection={"failures": 3, "rest_s": 60.0})
    bad = model("bad", fail_after=0)
    async with open_tree(bad, model("good"), members) as tree:
        with caplog.at_level(logging.WARNING, "atomr_infer.pipeline.pools.pool_runner"):
            heard = [await tree.ask() for _ in range(10)]
        assert {each.text for each in heard} == {"one two three"}
        assert asked(tree) == {"bad": 3, "good": 10}
        assert heard[0].verdicts == ["bad (failed)", "good"]
        assert heard[-1].verdicts == ["good"]
        await trio.sleep(60.0)
        await tree.ask()
        await tree.ask()
        assert asked(tree)["bad"] == 4
    assert [record.getMessage() for record in caplog.records] == [
        "auto: bad is left alone for 60 s: 3 failures in a row",
        "auto: bad is left alone for 120 s: it failed on trial",
    ]


async def test_what_has_begun_is_not_begun_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    cut = model("cut", reply="a b c", fail_after=2)
    heard = Heard()
    async with open_tree(cut, model("good"), pool("cut", "good")) as tree:
        with pytest.raises((UpstreamError, StreamCutError)):
            await tree.ask(heard=heard)
        assert asked(tree) == {"cut": 1, "good": 0}
    assert heard.text == "a b"


async def test_so_many_members_are_asked_and_the_last_ones_error_is_told(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    names = ("a", "b", "c")
    broken = [model(name, fail_after=0) for name in names]
    async with open_tree(*broken, pool(*names, attempts=2)) as tree:
        with pytest.raises(UpstreamError):
            await tree.ask()
        # Nobody tries the whole again.
        assert sum(asked(tree).values()) == 2


async def test_what_is_withheld_for_its_content_is_not_asked_of_another(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    strict = model("strict", fail_after=0, fail_kind="content_filter")
    async with open_tree(strict, model("lax"), pool("strict", "lax")) as tree:
        with pytest.raises(ContentFilterError):
            await tree.ask()
        assert asked(tree) == {"strict": 1, "lax": 0}


async def test_a_client_that_leaves_ends_it_and_says_nothing_of_the_member(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    hangs = model("hangs", hang_after=1)
    members = pool("hangs", "good", ejection={"failures": 1})
    async with open_tree(hangs, model("good"), members) as tree:
        with trio.move_on_after(1.0):
            await tree.ask()
        assert tree.runners["hangs"].active == 0
        await tree.ask()
        with trio.move_on_after(1.0):
            await tree.ask()
        assert asked(tree) == {"hangs": 2, "good": 1}


async def test_a_member_that_is_gone_is_as_one_that_fails(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    members = pool("a", "b", ejection={"failures": 1})
    async with open_tree(model("a"), model("b"), members) as tree:
        await tree.serving.undeploy("a")
        heard = [await tree.ask() for _ in range(3)]
        assert asked(tree)["b"] == 3
    assert [each.text for each in heard] == ["one two three"] * 3


async def test_texts_are_embedded_by_one_and_another_one_where_that_fails(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    once = RetryPolicy(max_attempts=1)
    members = [Deployment(name=name, runtime="vectors", retry=once) for name in "ab"]
    async with open_tree(*members, pool("a", "b")) as tree:

        async def lengths(text: str) -> float:
            request = EmbedRequest(request_id="r", model="auto", inputs=(text,))
            return (await embed(tree.serving, request)).value.vectors[0][0]

        assert [await lengths("cc"), await lengths("ddd")] == [2.0, 3.0]
        with pytest.raises(InferenceError, match="cannot be embedded"):
            await lengths("bad")
        counts = [getattr(tree.runners[name], "embedded") for name in "ab"]  # noqa: B009
    assert counts == [[("cc",), ("bad",)], [("ddd",), ("bad",)]]
