"""What stands in a swap's way leaves none that never ends, and nobody unserved."""

from __future__ import annotations

from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr.errors import CallError
from atomr_infer.errors import (
    ConfigError,
    EndpointUnsupportedError,
    InferenceError,
    InvalidRequestError,
    ModelNotFoundError,
    NotReadyError,
)
from atomr_infer.model.batch import Usage
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.policy.lifecycle.hot_swap import Phase, Tally
from atomr_infer.testing.mock import MockRunner
from tests.serving.swapping.test_hot_swap import NEW, OLD, PLAN, lab, loaded, mock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from tests.serving.conftest import OpenTree


# --- what stands in its way --------------------------------------------------------


@attrs.define(slots=False, eq=False)
class Vectors(MockRunner):
    """A runner that makes vectors, and no text."""

    asked: list[EmbedRequest] = attrs.field(factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__()
        self._capabilities = Capabilities(features=frozenset({Feature.EMBEDDINGS}))

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        raise EndpointUnsupportedError("it writes no text")
        yield  # type: ignore[unreachable] # makes it a generator

    async def embed(self, request: EmbedRequest) -> Embeddings:
        self.asked.append(request)
        return Embeddings(vectors=((1.0,),), usage=Usage())


@pytest.fixture
def way() -> str:
    """One way of making requests is enough here: both are swapped alike."""
    return "ordinary"


QUICK = SwapPlan(steps=(), step_s=0.0, min_requests=0)


def failing(times: float, error: Exception, real: Any) -> Any:
    """Return what fails so often, and then does what it did."""
    left = [times]

    async def call(*args: Any, **more: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise error
        return await real(*args, **more)

    return call


@pytest.mark.parametrize(
    "error", [CallError("manager", "undeploy"), NotReadyError("away")]
)
async def test_a_copy_that_cannot_be_ended_at_once_is_ended_later(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    async with open_tree(OLD) as tree:
        orders = tree.serving.orders
        monkeypatch.setattr(orders, "undeploy", failing(2, error, orders.undeploy))
        ended = await tree.serving.hot_swaps.swap(NEW, QUICK)
        assert tree.serving.deployments == {"m": NEW}
    assert (ended.phase, ended.reason) == (Phase.SWAPPED, "")


async def test_a_copy_that_can_never_be_ended_is_told_and_the_swap_ends(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_tree(OLD) as tree:
        orders = tree.serving.orders
        never = failing(inf, NotReadyError("away"), orders.undeploy)
        monkeypatch.setattr(orders, "undeploy", never)
        ended = await tree.serving.hot_swaps.swap(NEW, QUICK)
        assert (ended.phase, ended.reason) == (
            Phase.SWAPPED,
            "m:next is left: away",
        )
        # And it can be swapped again; the copy's name is taken.
        again = await tree.serving.hot_swaps.swap(OLD, QUICK)
        assert again.phase is Phase.ROLLED_BACK


async def test_a_swap_that_breaks_goes_back(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_tree(OLD) as tree:
        orders = tree.serving.orders
        broken = failing(1, KeyError("x"), orders.replace)
        monkeypatch.setattr(orders, "replace", broken)
        ended = await tree.serving.hot_swaps.swap(NEW, QUICK)
        assert tree.serving.deployments == {"m": OLD}
    assert (ended.phase, ended.reason) == (Phase.ROLLED_BACK, "KeyError('x')")


async def test_a_swap_whose_end_breaks_has_ended(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_tree(OLD) as tree:
        orders = tree.serving.orders
        broken = failing(1, KeyError("x"), orders.undeploy)
        monkeypatch.setattr(orders, "undeploy", broken)
        ended = await tree.serving.hot_swaps.swap(NEW, QUICK)
    assert (ended.phase, ended.reason) == (Phase.SWAPPED, "KeyError('x')")


async def test_what_no_node_can_have_counted_is_not_counted(
    open_tree: OpenTree,
) -> None:
    async with open_tree(OLD) as tree:
        board = tree.serving.hot_swaps._board
        for wrong in ([1], [1, 2, 3], "ab", 3, None, [1, "b"], [True, 1], [-1, 0]):
            board._counts.put("s", wrong)
            assert board.tallies("s") == {}
        board._counts.put("s", [3, 1])
        assert list(board.tallies("s").values()) == [Tally(3, 1)]


async def test_the_copy_stays_until_the_old_one_has_its_requests_again(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_tree(OLD) as tree, loaded(tree) as load:
        swap = await tree.serving.hot_swaps.begin(NEW, PLAN, None)
        await trio.sleep(25)  # the copy has all requests
        orders = tree.serving.orders
        away = failing(3, NotReadyError("away"), orders.replace)
        monkeypatch.setattr(orders, "replace", away)
        assert tree.serving.hot_swaps.cancel("m")
        await trio.sleep(1)
        assert "m:next" in tree.serving.deployments
        assert (swap.status.phase, swap.status.reason) == (
            Phase.ROLLING_BACK,
            "it was cancelled; then: away",
        )
        await swap.ended.wait()
        assert tree.serving.deployments == {"m": OLD}
        assert load.errors == []
    assert (swap.status.phase, swap.status.reason) == (
        Phase.ROLLED_BACK,
        "it was cancelled",
    )


async def test_the_copy_is_left_where_the_old_one_cannot_have_its_requests(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_tree(OLD) as tree:
        swap = await tree.serving.hot_swaps.begin(NEW, PLAN, None)
        await trio.sleep(5)
        orders = tree.serving.orders
        never = failing(inf, NotReadyError("away"), orders.replace)
        monkeypatch.setattr(orders, "replace", never)
        tree.serving.hot_swaps.cancel("m")
        await swap.ended.wait()
        assert set(tree.serving.deployments) == {"m", "m:next"}
    assert (swap.status.phase, swap.status.reason) == (
        Phase.ROLLED_BACK,
        "it was cancelled; then: away; m:next is left",
    )


async def test_an_answer_of_the_new_one_is_not_cut_when_it_has_taken_over(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    slow = mock("new and slow", delay_s=6.0)
    plan = SwapPlan(steps=(), step_s=10.0, min_requests=0, probe=None, drain_s=1.0)
    async with open_tree(OLD) as tree, loaded(tree, every_s=1.0) as load:
        ended = await tree.serving.hot_swaps.swap(slow, plan)
        await trio.sleep(15)
        assert load.errors == []
    assert ended.phase is Phase.SWAPPED


# --- what is asked first -----------------------------------------------------------


@pytest.mark.parametrize(
    ("serves", "model", "asked"),
    [
        (("gpt-*", "chat"), None, ["chat"]),
        (("gpt-*",), "gpt-4.1", ["gpt-4.1"]),
        (("gpt-*",), None, []),
    ],
)
async def test_a_pattern_is_never_asked_for(
    open_tree: OpenTree,
    autojump_clock: MockClock,
    serves: tuple[str, ...],
    model: str | None,
    asked: list[str],
) -> None:
    old = attrs.evolve(lab(1), serves=serves, model=model)
    async with open_tree(old) as tree:
        ended = await tree.serving.hot_swaps.swap(
            attrs.evolve(old, options={"version": 2}), QUICK
        )
        assert [batch.model for batch in tree.lab.runners[1].batches] == asked
    assert ended.phase is Phase.SWAPPED


async def test_what_makes_vectors_alone_is_asked_for_a_vector(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    runner = Vectors()
    async with open_tree(lab(1)) as tree:
        tree.lab.plan += [runner, Vectors()]
        ended = await tree.serving.hot_swaps.swap(lab(2), QUICK)
    assert [request.inputs for request in runner.asked] == [(QUICK.probe,)]
    assert (ended.phase, ended.reason) == (Phase.SWAPPED, "")


async def test_vectors_that_do_not_come_have_all_go_back(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    class Hangs(Vectors):
        async def embed(self, _: EmbedRequest) -> Embeddings:
            await trio.sleep_forever()
            raise AssertionError

    async with open_tree(lab(1)) as tree:
        tree.lab.plan += [Hangs()]
        ended = await tree.serving.hot_swaps.swap(lab(2), QUICK)
        assert tree.serving.deployments == {"m": lab(1)}
    assert ended.phase is Phase.ROLLED_BACK
    assert ended.reason.startswith("DeadlineError: ")


async def test_what_its_fallback_answers_is_no_answer_to_the_probe(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    spare = attrs.evolve(mock("spare"), name="spare", serves=("spare",))
    broken = attrs.evolve(mock("new", fail_after=0), fallbacks=("spare",))
    async with open_tree(spare, OLD) as tree:
        ended = await tree.serving.hot_swaps.swap(broken, PLAN)
        assert tree.serving.deployments["m"] == OLD
    assert ended.phase is Phase.ROLLED_BACK
    assert ended.reason.startswith("UpstreamError: ")


async def test_what_comes_has_its_fallbacks_when_clients_ask_it(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    spare = attrs.evolve(mock("spare"), name="spare", serves=("spare",))
    new = attrs.evolve(NEW, fallbacks=("spare",))
    async with open_tree(spare, OLD) as tree:
        swap = await tree.serving.hot_swaps.begin(new, PLAN, None)
        await trio.sleep(5)
        assert swap.status.phase is Phase.SHIFTING
        assert tree.serving.deployments["m:next"].fallbacks == new.fallbacks
        tree.serving.hot_swaps.cancel("m")
        await swap.ended.wait()


@attrs.define(slots=False, eq=False)
class Provider(Vectors):
    """A runner that says it can do all of what a provider's models can."""

    refuses: InferenceError = attrs.field(
        factory=lambda: ModelNotFoundError("this is not a chat model")
    )

    def __attrs_pre_init__(self) -> None:
        super().__attrs_pre_init__()
        features = frozenset({Feature.CHAT, Feature.EMBEDDINGS})
        self._capabilities = Capabilities(features=features)

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        raise self.refuses
        yield  # type: ignore[unreachable] # makes it a generator


async def test_a_providers_model_that_does_not_chat_is_asked_for_a_vector(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    runner = Provider()
    async with open_tree(lab(1)) as tree:
        tree.lab.plan += [runner, Provider()]
        ended = await tree.serving.hot_swaps.swap(lab(2), QUICK)
    assert [request.inputs for request in runner.asked] == [(QUICK.probe,)]
    assert (ended.phase, ended.reason) == (Phase.SWAPPED, "")


async def test_a_model_that_is_not_there_has_all_go_back_for_the_first_reason(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    class NotThere(Provider):
        async def embed(self, _: EmbedRequest) -> Embeddings:
            raise InvalidRequestError("the model does not support embeddings")

    async with open_tree(lab(1)) as tree:
        tree.lab.plan += [NotThere()]
        ended = await tree.serving.hot_swaps.swap(lab(2), QUICK)
        assert tree.serving.deployments == {"m": lab(1)}
    assert ended.phase is Phase.ROLLED_BACK
    assert ended.reason == "ModelNotFoundError: this is not a chat model"


async def test_the_runtime_that_a_model_tells_is_found(
    open_tree: OpenTree, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsaid = Deployment(name="m", serves=("m",), model="claude-sonnet-4-5")
    async with open_tree(OLD) as tree:
        swap = await tree.serving.hot_swaps.begin(unsaid, QUICK, None)
        await swap.ended.wait()
        assert swap._wanted.runtime == "anthropic"
        with pytest.raises(ConfigError, match="runtime is missing"):
            await tree.serving.hot_swaps.begin(
                attrs.evolve(unsaid, model="none-such"), QUICK, None
            )
