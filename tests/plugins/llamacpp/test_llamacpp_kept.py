"""Prompts that begin alike are read once, and say what they would say anyway."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atomr_infer.model.batch import ExecuteBatch, Sampling
from atomr_infer.runtimes.decoding.engine import Bounds
from atomr_infer.runtimes.decoding.sampling import Settings
from atomr_infer.runtimes.decoding.words import Words
from atomr_infer_llamacpp.engine import LlamaEngine
from atomr_infer_llamacpp.kept import Kept, Place, nearest, shared_tokens
from tests.plugins.llamacpp.strict import WORDS, StrictContext, next_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.batch import Usage
    from atomr_infer.runtimes.decoding.generation import Generation
    from atomr_infer_llamacpp.model import LlamaContext

PIECE = 4
LONG = list(range(10, 30))


class Numbers:
    """A tokenizer whose texts are numbers."""

    def encode(self, text: str, *, with_special: bool) -> list[int]:
        del with_special
        return [int(word) for word in text.split()]

    def decode(self, tokens: list[int]) -> str:
        return "".join(f"{token} " for token in tokens)

    def name_of(self, token: int) -> str:
        return f"{token} "

    def bytes_of(self, token: int) -> bytes:
        return self.name_of(token).encode()


@attrs.define
class Opened:
    """An engine that runs."""

    engine: LlamaEngine
    context: StrictContext
    words: Words

    def begin(self, prompt: list[int], *, most: int = 3, n: int = 1) -> Generation:
        batch = ExecuteBatch(
            request_id="r",
            model="m",
            messages=(),
            prompt=" ",
            sampling=Sampling(n=n, max_tokens=most, temperature=0.0),
        )
        return self.words.begin(batch, prompt, room=999, wake=self.engine.wake)

    async def ask(
        self, prompt: list[int], *, most: int = 3, n: int = 1
    ) -> tuple[set[str], Usage]:
        """What is answered, each answer once, and the usage."""
        generation = self.begin(prompt, most=most, n=n)
        self.engine.submit(generation)
        texts, usage = [""] * n, None
        try:
            async for chunk in generation:
                texts[chunk.index] += chunk.text
                usage = usage if chunk.usage is None else chunk.usage
        finally:
            await generation.leave()
        assert usage is not None
        return set(texts), usage


@asynccontextmanager
async def opened(
    *, max_seqs: int = 3, cache_tokens: int = 100, keeps: bool = True
) -> AsyncIterator[Opened]:
    bounds = Bounds(max_seqs=max_seqs, prefill_tokens=PIECE, cache_tokens=cache_tokens)
    context = StrictContext(
        cache_tokens=cache_tokens, batch_tokens=max(max_seqs, PIECE)
    )
    engine = LlamaEngine(cast("LlamaContext", context), bounds, keeps=keeps)
    words = Words(Numbers(), None, frozenset(), Settings())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.run)
        yield Opened(engine, context, words)
        nursery.cancel_scope.cancel()


def follows(prompt: list[int], most: int = 3) -> str:
    tokens = list(prompt)
    for _ in range(most):
        tokens.append(next_of(tokens))
    return "".join(f"{token} " for token in tokens[len(prompt) :])


async def test_a_prompt_that_was_read_is_read_again_from_its_last_whole_piece() -> None:
    async with opened() as it:
        said, usage = await it.ask(LONG)
        before = it.context.read_tokens
        again, later = await it.ask(LONG)
        # 16 of 20 tokens are whole pieces before the last one.
        assert it.context.read_tokens - before == 4 + 2
        told = {figure.name: figure.value for figure in it.engine.figures()}
    assert told["prefix_asked_tokens"] == 40
    assert told["prefix_hit_tokens"] == 16
    assert said == again == {follows(LONG)}
    assert (usage.input_uncached, usage.cache_read) == (20, 0)
    assert (later.input_uncached, later.cache_read) == (4, 16)


async def test_a_conversation_goes_on_from_its_answers() -> None:
    async with opened() as it:
        first, _ = await it.ask(LONG, most=5)
        [text] = first
        turn = [*LONG, *(int(word) for word in text.split()), 1, 2, 3]
        said, usage = await it.ask(turn)
    # The last answer's last token was never read.
    assert usage.cache_read == 24
    assert said == {follows(turn)}


async def test_a_common_beginning_serves_prompts_that_go_on_differently() -> None:
    async with opened() as it:
        for at in range(6):
            prompt = [*LONG[:12], at, at, at, at, at]
            said, usage = await it.ask(prompt)
            assert said == {follows(prompt)}
            assert usage.cache_read == (12 if at else 0)


async def test_one_that_is_under_way_shares_its_prompt() -> None:
    async with opened() as it, trio.open_nursery() as nursery:
        generation = it.begin(LONG, most=40)
        it.engine.submit(generation)
        await anext(generation)
        said, usage = await it.ask(LONG)
        assert usage.cache_read == 16
        assert said == {follows(LONG)}
        generation.left = True
        nursery.start_soon(generation.leave)


async def test_answers_of_one_request_share_and_are_kept_once() -> None:
    async with opened() as it:
        said, _ = await it.ask(LONG, n=3, most=2)
        assert said == {follows(LONG, 2)}
        assert it.engine.sequences == 0
        assert it.engine.cached_tokens == 20
        _, usage = await it.ask(LONG, n=3, most=2)
        assert usage.cache_read == 16


async def test_what_is_kept_makes_room_for_what_is_asked() -> None:
    async with opened(max_seqs=2, cache_tokens=30) as it:
        for start in range(0, 20, 4):
            prompt = [start + n for n in range(20)]
            said, usage = await it.ask(prompt, most=10)
            assert said == {follows(prompt, 10)}
            assert usage.cache_read == 0
    assert it.context.most_cells <= 30


async def test_nothing_is_kept_where_it_is_not_wanted() -> None:
    async with opened(keeps=False) as it:
        await it.ask(LONG)
        assert it.engine.cached_tokens == 0
        _, usage = await it.ask(LONG)
        names = {figure.name for figure in it.engine.figures()}
    assert usage.cache_read == 0
    assert "prefix_asked_tokens" not in names


async def test_what_a_stopped_run_has_left_is_not_kept() -> None:
    async with opened() as it:
        generation, runs = it.begin(LONG), 0

        def leave_in_the_third() -> None:
            nonlocal runs
            runs += 1
            generation.left = runs == 3

        it.context.meanwhile = leave_in_the_third
        it.engine.submit(generation)
        await generation.ended.wait()
        assert (runs, it.engine.cached_tokens) == (3, 8)
        said, usage = await it.ask(LONG)
    assert said == {follows(LONG)}
    assert usage.cache_read == 8


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
async def test_whatever_comes_and_leaves_each_says_what_it_would_say_alone(
    seed: int,
) -> None:
    draw = random.Random(seed)
    beginnings = [[draw.randrange(WORDS) for _ in range(17)] for _ in range(2)]

    async def client(it: Opened) -> None:
        for _ in range(4):
            begin = draw.choice(beginnings)[: draw.randrange(18)]
            prompt = [*begin, *(draw.randrange(WORDS) for _ in range(4))]
            most, n = draw.randrange(1, 8), draw.choice([1, 1, 2])
            if draw.random() < 0.2:
                generation = it.begin(prompt, most=most, n=n)
                it.engine.submit(generation)
                for _ in range(draw.randrange(4)):
                    await trio.lowlevel.checkpoint()
                await generation.leave()
                continue
            said, usage = await it.ask(prompt, most=most, n=n)
            assert said == {follows(prompt, most)}
            assert usage.prompt_tokens == len(prompt)

    async with opened(max_seqs=3, cache_tokens=70) as it:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client, it)
        assert it.engine.sequences == 0
        assert it.engine.crash is None


# --- what is kept -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "prompt", "shared"),
    [
        ([], [1, 2, 3], 0),
        ([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8, 9], 8),
        ([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8], 4),
        ([1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 0, 6, 7, 8, 9], 4),
        ([1, 2, 3, 4], [0, 2, 3, 4, 5], 0),
        ([1, 2, 3], [1, 2, 3, 4, 5], 0),
    ],
)
def test_whole_pieces_are_shared_and_the_last_token_is_not(
    tokens: list[int], prompt: list[int], shared: int
) -> None:
    assert shared_tokens(Place(0, tokens), prompt, PIECE) == shared


def test_the_nearest_has_most_of_the_prompt() -> None:
    one, other = Place(0, [1, 2, 3, 4]), Place(1, [1, 2, 3, 4, 5, 6, 7, 8])
    assert nearest([one, other], range(1, 12), PIECE) == (other, 8)
    assert nearest([one, other], [9] * 9, PIECE) == (None, 0)


def test_what_another_begins_with_is_not_kept_beside_it() -> None:
    kept = Kept()
    short, long, other = Place(0, [1, 2]), Place(1, [1, 2, 3]), Place(2, [5])
    assert kept.add(short) == []
    assert kept.add(other) == []
    assert kept.add(long) == [short]
    assert kept.places == [other, long]
    again = Place(3, [5])
    assert kept.add(again) == [again]
    assert kept.places == [long, other]


def test_who_was_not_used_for_the_longest_goes_first() -> None:
    kept = Kept()
    one, two, three = (Place(seq, [seq] * 3) for seq in range(3))
    for place in (one, two, three):
        kept.add(place)
    kept.touch(one)
    assert kept.make_room(places=1, tokens=99) == [two]
    assert kept.make_room(places=0, tokens=3, but_last=three) == [one]
    assert kept.make_room(places=0, tokens=0, but_last=three) == [three]
    assert kept.tokens == 0
