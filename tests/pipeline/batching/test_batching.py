"""A deployment that embeds the texts of many requests at once."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing

from atomr_infer.config.validate import validate_deployments
from atomr_infer.errors import (
    ConfigError,
    InferenceError,
    InvalidRequestError,
    UpstreamError,
)
from atomr_infer.model.asker import Asker
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.prices import Price, Rates
from atomr_infer.serving.requests.whole_calls import Found, embed
from tests.pipeline.conftest import OpenTree, Tree, VectorRunner, model

if TYPE_CHECKING:
    from trio.testing import MockClock

    from atomr_infer.model.embeddings import Embeddings

# A tenth of a cent for a token.
PRICE = Price(rates=Rates(input=1000.0, output=0.0))


def small(**more: Any) -> Deployment:
    return Deployment(name="small", runtime="vectors", price=PRICE, **more)


def batching(of: str = "small", **options: Any) -> Deployment:
    members = {"model": of, "wait": "always", "max_wait_s": 0.1, **options}
    return Deployment(name="auto", runtime="batching", options=members)


def embedded(tree: Tree, name: str = "small") -> list[tuple[object, ...]]:
    runner = tree.runners[name]
    assert isinstance(runner, VectorRunner)
    return runner.embedded


def request(*texts: str, **more: Any) -> EmbedRequest:
    return EmbedRequest(request_id=f"r-{texts[0]}", model="auto", inputs=texts, **more)


async def together(
    tree: Tree, *requests: EmbedRequest
) -> list[Found[Embeddings] | InferenceError]:
    """Make requests in tasks of their own, in order."""
    found: dict[int, Found[Embeddings] | InferenceError] = {}

    async def ask(number: int) -> None:
        try:
            found[number] = await embed(tree.serving, requests[number])
        except InferenceError as error:
            found[number] = error

    async with trio.open_nursery() as nursery:
        for number in range(len(requests)):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
    return [found[number] for number in range(len(requests))]


def lengths(found: Found[Embeddings] | InferenceError) -> list[float]:
    assert isinstance(found, Found)
    return [vector[0] for vector in found.value.vectors]


async def test_texts_of_several_requests_are_asked_for_by_one_that_each_pays_a_part_of(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(small(), batching()) as tree:
        found = await together(
            tree, request("a"), request("bbb", "cc", priority=2), request("ddd")
        )
        assert embedded(tree) == [("bbb", "cc", "a", "ddd")]
        assert tree.ledger() == [("small", 4)]
    assert [lengths(each) for each in found] == [[1.0], [3.0, 2.0], [3.0]]
    served = [each.served for each in found if isinstance(each, Found)]
    assert [each.stages[0].partition("s $")[2] for each in served] == [
        "0.001 (batch of 4)", "0.002 (batch of 4)", "0.001 (batch of 4)",
    ]  # fmt: skip
    # Four tokens were read, by estimate one for each text.
    assert [each.cost.usd for each in served if each.cost] == [
        Decimal("0.001"), Decimal("0.002"), Decimal("0.001"),
    ]  # fmt: skip
    assert [each.value.usage.prompt_tokens for each in found] == [1, 2, 1]  # type: ignore[union-attr]


async def test_who_classifies_texts_is_told_the_labels(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(small(), batching()) as tree:
        some = [request(text, classifies=True) for text in ("a", "bb")]
        found = await together(tree, *some, request("c"))
        assert set(embedded(tree)) == {("a", "bb"), ("c",)}
    labels = [each.value.labels for each in found if isinstance(each, Found)]
    assert labels == [("long",), ("long",), ()]


async def test_a_text_that_is_refused_harms_its_own_request_only(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(small(), batching()) as tree:
        good, bad, other = await together(
            tree, request("a"), request("ok", "refused"), request("c")
        )
        assert len(embedded(tree)) == 5
    assert (lengths(good), lengths(other)) == ([1.0], [1.0])
    assert isinstance(bad, InvalidRequestError)


async def test_an_upstream_that_fails_fails_all_and_is_not_asked_again_for_each(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(small(), batching()) as tree:
        one, other = await together(tree, request("a"), request("bad"))
        # As often as its own deployment says.
        assert len(embedded(tree)) == 3
    assert isinstance(one, UpstreamError)
    assert isinstance(other, UpstreamError)
    assert one is not other


async def test_who_leaves_harms_nobody_and_with_the_last_one_the_request_ends(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(small(), batching()) as tree:

        async def leave(text: str) -> None:
            with trio.move_on_after(0.5):
                await embed(tree.serving, request(text))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, "a")
            found = await embed(tree.serving, request("bb"))
        assert lengths(found) == [2.0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, "c")
            nursery.start_soon(leave, "d")
        await trio.testing.wait_all_tasks_blocked()
        [replica] = tree.serving.replicas("small")
        assert replica.outstanding == 0
        assert trio.current_time() < 2.0


@pytest.mark.parametrize(
    "more",
    [
        {"asker": Asker("another")},
        {"dimensions": 2},
        {"task": "RETRIEVAL_QUERY"},
        {"user": "somebody"},
        {"extra": {"x": b"1"}},
    ],
    ids=lambda more: next(iter(more)),
)
async def test_requests_that_differ_are_not_put_together(
    open_tree: OpenTree, autojump_clock: MockClock, more: dict[str, Any]
) -> None:
    async with open_tree(small(), batching()) as tree:
        await together(tree, request("a"), request("b"), request("c", **more))
        assert sorted(embedded(tree)) == [("a", "b"), ("c",)]


async def test_what_is_too_much_for_one_batch_is_several(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(small(), batching(max_batch=2)) as tree:
        [found] = await together(tree, request("a", "bb", "ccc"))
        assert sorted(embedded(tree)) == [("a", "bb"), ("ccc",)]
    assert lengths(found) == [1.0, 2.0, 3.0]
    assert isinstance(found, Found)
    assert found.value.usage.prompt_tokens == 3
    assert found.served.cost is not None
    assert found.served.cost.usd == Decimal("0.003")


async def test_a_bound_of_one_client_is_not_the_others(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(small(), batching()) as tree:
        hasty, patient = await together(tree, request("a", timeout_s=0.5), request("b"))
    assert isinstance(hasty, InferenceError)
    assert lengths(patient) == [1.0]


async def test_a_deployment_that_is_stopped_ends_what_waits(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(small(), batching()) as tree:

        async def ask() -> None:
            with pytest.raises(InferenceError, match="auto was stopped"):
                await embed(tree.serving, request("a"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.5)
            await tree.serving.undeploy("auto")
        await trio.testing.wait_all_tasks_blocked()
        [replica] = tree.serving.replicas("small")
        assert replica.outstanding == 0


async def test_generations_pass_on(open_tree: OpenTree) -> None:
    async with open_tree(model("small", reply="a b"), batching()) as tree:
        heard = await tree.ask()
    assert heard.text == "a b"
    assert heard.verdicts == ["small"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"options": {"model": "nobody"}}, "nobody"),
        ({"options": {"model": "auto"}}, "it would ask itself: auto -> auto"),
        ({"price": PRICE}, "price has no meaning for the runtime 'batching'"),
        ({"options": {"model": "small", "max_batch": 0}}, "must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused_before_it_serves(
    change: dict[str, Any], told: str
) -> None:
    mock = Deployment(name="small", runtime="mock")
    with pytest.raises(ConfigError, match=told):
        validate_deployments((mock, attrs.evolve(batching(), **change)))
