"""Requests that are the same have one answer, and are asked once."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.errors import InferenceError, InvalidRequestError, UpstreamError
from atomr_infer.model.asker import Asker
from atomr_infer.model.batch import (
    ExecuteBatch,
    Message,
    RefusalPart,
    Role,
    Sampling,
    TextPart,
)
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.pipeline.asking.sameness import key_of
from atomr_infer.pipeline.caching.answer_cache import AnswerCache
from atomr_infer.serving.requests.whole_calls import embed
from tests.pipeline.conftest import (
    PRICE,
    Heard,
    OpenTree,
    Tree,
    VectorRunner,
    model,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

ALWAYS = Sampling(temperature=0.0)


def cache(of: str = "small", **options: Any) -> Deployment:
    return Deployment(name="auto", runtime="cache", options={"model": of, **options})


def asked(tree: Tree, name: str = "small") -> int:
    return len(tree.runners[name].batches)


async def test_a_request_that_was_answered_is_answered_again_for_nothing(
    open_tree: OpenTree,
) -> None:
    async with open_tree(model("small"), cache()) as tree:
        first = await tree.ask(sampling=ALWAYS)
        again = await tree.ask(sampling=ALWAYS, stream=False)
        other = await tree.ask("one two", sampling=ALWAYS)
        paid = tree.ledger()
    assert asked(tree) == 2
    assert (first.text, again.text, other.text) == (*["one two three"] * 2, "one two")
    # A stream is given again as the stream that it was.
    assert again.chunks == first.chunks
    assert (first.verdicts, again.verdicts) == (["small"], ["small (hit)"])
    assert again.done is not None
    assert again.done.cost is not None
    assert again.done.cost.usd == Decimal(0)
    assert [name for name, _ in paid] == ["small", "small"]


async def test_an_answer_that_is_drawn_is_not_given_again_unless_that_is_said(
    open_tree: OpenTree,
) -> None:
    for options, times in (({}, 3), ({"requests": "all"}, 1)):
        async with open_tree(model("small"), cache(**options)) as tree:
            for _ in range(3):
                await tree.ask()
            assert asked(tree) == times


async def test_an_answer_is_kept_for_its_time(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(model("small"), cache(ttl_s=10.0)) as tree:
        await tree.ask(sampling=ALWAYS)
        await trio.sleep(9.0)
        await tree.ask(sampling=ALWAYS)
        assert asked(tree) == 1
        await trio.sleep(2.0)
        await tree.ask(sampling=ALWAYS)
        assert asked(tree) == 2


async def test_what_is_the_same_and_under_way_is_asked_once_and_streams_to_all(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    times: dict[int, list[float]] = {0: [], 1: [], 2: []}

    class Timed(Heard):
        async def chunk(self, chunk: Any) -> None:
            await super().chunk(chunk)
            if chunk.text:
                times[numbers[id(self)]].append(trio.current_time() - began_at)

    async def ask(sink: Heard, after_s: float) -> None:
        await trio.sleep(after_s)
        await tree.ask(heard=sink, sampling=ALWAYS)

    sinks: list[Heard] = [Timed() for _ in range(3)]
    numbers = {id(sink): number for number, sink in enumerate(sinks)}
    async with open_tree(model("small", reply="a b c", delay_s=1.0), cache()) as tree:
        began_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number, sink in enumerate(sinks):
                nursery.start_soon(ask, sink, number * 1.5)
        assert asked(tree) == 1
        assert tree.ledger() == [("small", 6)]
    assert [[round(at, 1) for at in times[n]] for n in range(3)] == [
        [1.0, 2.0, 3.0],
        [1.5, 2.0, 3.0],
        [3.0, 3.0, 3.0],
    ]
    assert [sink.verdicts for sink in sinks] == [
        ["small"],
        ["small (joined)"],
        ["small (joined)"],
    ]


async def test_who_began_may_leave_and_the_others_have_the_whole_answer(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async def leave() -> None:
        with trio.move_on_after(1.5):
            await tree.ask(sampling=ALWAYS)

    async with open_tree(model("small", reply="a b c", delay_s=1.0), cache()) as tree:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            await trio.sleep(0.5)
            heard = await tree.ask(sampling=ALWAYS)
        assert heard.text == "a b c"
        assert asked(tree) == 1
        assert (await tree.ask(sampling=ALWAYS)).verdicts == ["small (hit)"]


async def test_when_the_last_one_leaves_the_generation_ends_and_nothing_is_kept(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async def leave(after_s: float) -> None:
        with trio.move_on_after(after_s):
            await tree.ask(sampling=ALWAYS)

    async with open_tree(model("small", reply="a b c", delay_s=1.0), cache()) as tree:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, 1.2)
            nursery.start_soon(leave, 1.4)
        await trio.testing.wait_all_tasks_blocked()
        assert tree.runners["small"].active == 0
        assert [name for name, _ in tree.ledger()] == ["small"]
        assert (await tree.ask(sampling=ALWAYS)).text == "a b c"
        assert asked(tree) == 2


@pytest.mark.parametrize("after", [0, 1])
async def test_a_failure_is_each_ones_own_and_is_not_kept(
    open_tree: OpenTree, autojump_clock: MockClock, after: int
) -> None:
    errors: list[InferenceError] = []

    async def ask() -> None:
        with pytest.raises(UpstreamError) as raised:
            await tree.ask(sampling=ALWAYS)
        errors.append(raised.value)

    # Who is asked tries twice; nobody does so again for the whole.
    broken = model("small", reply="a b", delay_s=1.0, fail_after=after, retries=2)
    async with open_tree(broken, cache()) as tree:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        # Once its first word was passed on, it is not tried again.
        tries = 1 if after else 2
        assert asked(tree) == tries
        assert errors[0] is not errors[1]
        await ask()
        assert asked(tree) == 2 * tries


async def test_a_bound_of_one_client_is_not_the_others(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(model("small", reply="a b c", delay_s=1.0), cache()) as tree:

        async def hasty() -> None:
            with pytest.raises(InferenceError, match="longer than"):
                await tree.ask(sampling=ALWAYS, timeout_s=1.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hasty)
            await trio.sleep(0.1)
            assert (await tree.ask(sampling=ALWAYS)).text == "a b c"
        assert asked(tree) == 1


async def test_an_answer_larger_than_the_cache_waits_for_its_slowest_reader(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    class Slow(Heard):
        async def chunk(self, chunk: Any) -> None:
            await super().chunk(chunk)
            await trio.sleep(1.0)

    words = " ".join("abcdefgh")
    slow = Slow()
    async with open_tree(model("small", reply=words), cache(max_bytes=1500)) as tree:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: tree.ask(heard=slow, sampling=ALWAYS))
            quick = await tree.ask(sampling=ALWAYS)
            # It had to wait, as nothing more was taken from the model.
            assert len(slow.chunks) >= 7
        assert (quick.text, slow.text) == (words, words)
        assert asked(tree) == 1
        await tree.ask(sampling=ALWAYS)
        assert asked(tree) == 2


async def test_a_cache_that_is_stopped_ends_what_it_asks(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(model("small", hang_after=1), cache()) as tree:

        async def ask() -> None:
            with pytest.raises(InferenceError, match="auto was stopped"):
                await tree.ask(sampling=ALWAYS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1.0)
            await tree.serving.undeploy("auto")
        await trio.testing.wait_all_tasks_blocked()
        assert tree.runners["small"].active == 0


async def test_of_texts_to_embed_only_those_are_asked_for_that_are_not_there(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async def vectors(*texts: str) -> tuple[list[float], int]:
        request = EmbedRequest(request_id=texts[0], model="auto", inputs=texts)
        found = (await embed(tree.serving, request)).value
        return [each[0] for each in found.vectors], found.usage.prompt_tokens

    small = Deployment(name="small", runtime="vectors")
    async with open_tree(small, cache()) as tree:
        runner = tree.runners["small"]
        assert isinstance(runner, VectorRunner)
        assert await vectors("a", "bbb", "a") == ([1.0, 3.0, 1.0], 2)
        assert await vectors("cc", "a") == ([2.0, 1.0], 1)
        assert await vectors("bbb") == ([3.0], 0)
        with pytest.raises(UpstreamError, match="cannot be embedded"):
            await vectors("bad")
        assert runner.embedded[:2] == [("a", "bbb"), ("cc",)]
        # Tried as often as its own deployment says, and not that often again.
        assert runner.embedded[2:] == [("bad",)] * 3


async def vectors_of(tree: Tree, *texts: str, **more: Any) -> Any:
    request = EmbedRequest(request_id=texts[0], model="auto", inputs=texts, **more)
    return await embed(tree.serving, request)


async def test_who_classifies_texts_is_told_the_labels_and_nothing_is_kept(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(embedder(), cache()) as tree:
        for _ in range(2):
            found = (await vectors_of(tree, "a", classifies=True)).value
            assert (found.vectors, found.labels) == (((1.0,),), ("long",))
        assert embedded(tree) == [("a",), ("a",)]


async def each_of(tree: Tree, *requests: tuple[str, ...]) -> list[Any]:
    """Ask for vectors, each a tenth of a second after the one before."""
    found: dict[int, Any] = {}

    async def ask(number: int) -> None:
        try:
            found[number] = await vectors_of(tree, *requests[number])
        except InferenceError as error:
            found[number] = error

    async with trio.open_nursery() as nursery:
        for number in range(len(requests)):
            nursery.start_soon(ask, number)
            await trio.sleep(0.1)
    return [found[number] for number in range(len(requests))]


def embedder() -> Deployment:
    return Deployment(
        name="small",
        runtime="vectors",
        price=PRICE,
        retry=RetryPolicy(max_attempts=1),
    )


def embedded(tree: Tree) -> list[tuple[object, ...]]:
    runner = tree.runners["small"]
    assert isinstance(runner, VectorRunner)
    return runner.embedded


async def test_a_text_that_is_being_embedded_is_not_asked_for_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(embedder(), cache()) as tree:
        found = await each_of(tree, ("a", "bbb"), ("bbb", "cc"), ("a", "cc"))
        assert embedded(tree) == [("a", "bbb"), ("cc",)]
        assert [name for name, _ in tree.ledger()] == ["small", "small"]
    vectors = [[v[0] for v in each.value.vectors] for each in found]
    assert vectors == [[1.0, 3.0], [3.0, 2.0], [1.0, 2.0]]
    # Who began pays, and each text is read once.
    assert [each.value.usage.prompt_tokens for each in found] == [2, 1, 0]
    told = [[stage.partition(" ")[2] for stage in each.served.stages] for each in found]
    assert [["joined" in stage for stage in each] for each in told] == [
        [False], [True, False], [True],
    ]  # fmt: skip


async def test_whose_text_is_wrong_is_nobody_elses_failure(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(embedder(), cache()) as tree:
        wrong, joined = await each_of(tree, ("a", "refused"), ("a", "bb"))
        assert embedded(tree) == [("a", "refused"), ("bb",), ("a",)]
    assert isinstance(wrong, InvalidRequestError)
    assert [v[0] for v in joined.value.vectors] == [1.0, 2.0]


async def test_an_upstream_that_is_down_is_not_asked_again_by_those_who_joined(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(embedder(), cache()) as tree:
        one, other = await each_of(tree, ("a", "bad"), ("a",))
        assert embedded(tree) == [("a", "bad")]
        assert isinstance(one, UpstreamError)
        assert isinstance(other, UpstreamError)
        assert one is not other
        # And nothing of it is kept.
        await each_of(tree, ("a",))
        assert embedded(tree) == [("a", "bad"), ("a",)]


async def test_who_began_may_leave_and_with_the_last_one_the_embedding_ends(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree(embedder(), cache()) as tree:

        async def leave(text: str, after_s: float) -> None:
            with trio.move_on_after(after_s):
                await vectors_of(tree, text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, "a", 0.5)
            await trio.sleep(0.1)
            found = await vectors_of(tree, "a", timeout_s=5.0)
        assert [v[0] for v in found.value.vectors] == [1.0]
        assert embedded(tree) == [("a",)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, "bb", 0.5)
            nursery.start_soon(leave, "bb", 0.6)
        [replica] = tree.serving.replicas("small")
        assert replica.outstanding == 0
        # One that comes when it has been left asks anew.
        assert (await vectors_of(tree, "bb")).value.vectors == ((2.0,),)
        assert embedded(tree) == [("a",), ("bb",), ("bb",)]


# --- what is the same ---------------------------------------------------------------

PLAIN = ExecuteBatch(
    request_id="r", model="m", messages=(Message(Role.USER, "hello"),), sampling=ALWAYS
)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (Message(Role.USER, (TextPart("hel"), TextPart("lo"))),)},
        {"messages": (Message(Role.USER, (RefusalPart("hello"),)),)},
        {"messages": (Message(Role.SYSTEM, "hello"),)},
        {"sampling": Sampling(temperature=0.0, max_tokens=1)},
        {"sampling": Sampling(temperature=0.0, n=2)},
        {"extra": {"top_a": b"1"}},
        {"client_headers": {"x-upstream-key": "another"}},
        {"prompt": "hello"},
        {"asker": Asker("another")},
    ],
)
def test_what_a_model_could_answer_by_makes_another_request(
    change: dict[str, Any],
) -> None:
    changed = attrs.evolve(PLAIN, **change)

    assert key_of(changed, shared_by="key") != key_of(PLAIN, shared_by="key")


def test_two_members_are_not_one_that_holds_both() -> None:
    keys = {
        key_of(attrs.evolve(PLAIN, extra=extra), shared_by="key")
        for extra in ({"x": b"1", "y": b"2"}, {"x": b"1'y'2"})
    }

    assert len(keys) == 2


def test_what_is_of_the_transport_makes_no_other_request() -> None:
    changed = attrs.evolve(
        PLAIN, request_id="x", stream=False, priority=3, timeout_s=1.0, session="s"
    )

    assert key_of(changed, shared_by="key") == key_of(PLAIN, shared_by="key")


def test_answers_are_shared_as_far_as_is_said() -> None:
    one, two = Asker("one", team="web"), Asker("two", team="web", weight=9.0)

    def same(shared_by: str) -> bool:
        keys = {
            key_of(attrs.evolve(PLAIN, asker=a), shared_by=shared_by)
            for a in (one, two)
        }
        return len(keys) == 1

    assert (same("key"), same("team"), same("all")) == (False, True, True)


@given(
    st.lists(
        st.tuples(st.sampled_from("gp"), st.sampled_from("abcd"), st.integers(1, 40)),
        max_size=30,
    )
)
def test_a_cache_never_holds_more_than_its_bound(
    steps: list[tuple[str, str, int]],
) -> None:
    kept: AnswerCache[int] = AnswerCache(60, 10.0)
    order: list[tuple[str, int]] = []
    for now, (step, name, size) in enumerate(steps):
        if step == "p":
            kept.put(name.encode(), size, size, now)
            order = [each for each in order if each[0] != name] + [(name, size)]
            while sum(each[1] for each in order) > 60:
                del order[0]
        else:
            got = kept.get(name.encode(), now)
            known = dict(order)
            assert got in (None, known.get(name))
            if got is None:
                order = [each for each in order if each[0] != name]
            else:
                order = [e for e in order if e[0] != name] + [(name, known[name])]
        assert kept.size_bytes <= 60
        assert len(kept) == len(order)
