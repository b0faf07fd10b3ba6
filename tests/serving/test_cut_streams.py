"""A stream that breaks after its first words ends as its deployment says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr import telemetry
from atomr_infer import errors
from atomr_infer.model.batch import (
    FinishReason,
    Message,
    RawChunk,
    ReasoningDelta,
    Role,
    Sampling,
    TokenChunk,
    ToolCallDelta,
    Usage,
)
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.deployment import Deployment, Jitter, RetryPolicy, Timeouts
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.failover import BreakerPolicy, OnCut
from atomr_infer.model.parts import Signature
from atomr_infer.model.source import Source
from atomr_infer.serving.requests.served import Spent, Tried
from tests.serving.acts import STOP, USAGE, Act, Player, cut, fails, says, stalls
from tests.serving.conftest import Collected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

    from tests.serving.conftest import OpenTree, Tree

TWICE = RetryPolicy(max_attempts=2, backoff_s=1.0, jitter=Jitter.NONE)
A = Deployment(name="m", runtime="lab", retry=TWICE)
B = Deployment(name="b", runtime="lab", retry=TWICE)


def on(policy: OnCut, *fallbacks: str) -> Deployment:
    return attrs.evolve(A, on_cut=policy, fallbacks=fallbacks)


async def deploy(tree: Tree, *pairs: tuple[Deployment, Player]) -> None:
    for deployment, player in reversed(pairs):
        tree.lab.plan = [player]
        await tree.serving.deploy(deployment)


FAILURES = [
    cut("Hel"),
    cut("Hel", error=errors.UpstreamError("in-band", status=500)),
    cut("Hel", error=errors.EngineCrashedError("killed")),
    stalls("Hel"),
]
IDS = ["cut", "in-band error", "crash", "stall"]


@pytest.mark.parametrize("failure", FAILURES, ids=IDS)
async def test_by_default_the_client_gets_an_explicit_error(
    open_tree: OpenTree, autojump_clock: MockClock, failure: Act
) -> None:
    sink = Collected()
    async with open_tree() as tree:
        await deploy(tree, (on(OnCut.ERROR, "b"), Player([failure])), (B, Player()))
        with pytest.raises(errors.InferenceError):
            await tree.ask(sink=sink)
        await tree.idle()
    assert sink.texts == ["Hel"]


@pytest.mark.parametrize("failure", FAILURES, ids=IDS)
async def test_restart_match_sends_the_answer_once_from_the_same_deployment(
    open_tree: OpenTree, autojump_clock: MockClock, failure: Act
) -> None:
    async with open_tree() as tree:
        player = Player([failure, says("Hello", " you")])
        await deploy(tree, (on(OnCut.RESTART_MATCH), player))
        answer = await tree.ask()
        await tree.idle()
    assert answer.texts == ["Hel", "lo", " you"]
    assert answer.chunks[-2:] == [STOP, USAGE]
    assert len(answer.served) == 1
    assert answer.result is not None
    assert answer.result.recovered


async def test_restart_match_goes_on_from_a_fallback_and_both_are_billed(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        first = Player([cut("Hello")] * 2)
        second = Player([says("He", "llo yo", "u")])
        await deploy(tree, (on(OnCut.RESTART_MATCH, "b"), first), (B, second))
        answer = await tree.ask("12345678")
    assert "".join(answer.texts) == "Hello you"
    assert answer.result is not None
    assert answer.result.attempts == (
        Tried("m", "stream_cut"),
        Tried("m", "stream_cut"),
        Tried("b"),
    )
    lost = Usage(input_uncached=2, output_text=2, estimated=True, interrupted=True)
    assert answer.result.spent == (
        Spent("m", "m", lost),
        Spent("m", "m", lost),
        Spent("b", "m", Usage(input_uncached=3, output_text=2)),
    )


async def test_another_answer_ends_with_an_error_at_the_first_difference(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    sink = Collected()
    async with open_tree() as tree:
        first = Player([cut("Hello")] * 2)
        second = Player([says("Hel", "p!")])
        b = attrs.evolve(
            B, options={"endpoint": "b"}, breaker=BreakerPolicy(max_failures=1)
        )
        await deploy(tree, (on(OnCut.RESTART_MATCH, "b"), first), (b, second))
        with pytest.raises(errors.AnswerDivergedError, match="another answer"):
            await tree.ask(sink=sink)
        await tree.idle()
        guard = tree.serving.breakers.of("b")
        assert guard is not None
        assert not guard.is_open
    assert sink.texts == ["Hello"]
    assert len(second.batches) == 1


async def test_a_request_that_fails_is_billed_for_each_attempt_once(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    stops: list[Mapping[str, object]] = []
    telemetry.attach(
        "test",
        ("atomr_infer", "request", "stop"),
        lambda _event, _measurements, metadata: stops.append(metadata),
    )
    try:
        async with open_tree() as tree:
            await deploy(tree, (on(OnCut.RESTART_MATCH), Player([cut("Hello")] * 2)))
            with pytest.raises(errors.StreamCutError):
                await tree.ask("12345678")
    finally:
        telemetry.detach("test")
    lost = Usage(input_uncached=2, output_text=2, estimated=True, interrupted=True)
    assert [stop["spent"] for stop in stops] == [(Spent("m", "m", lost),) * 2]


async def test_a_second_cut_is_taken_up_too(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        player = Player([cut("He"), cut("Hell")])
        await deploy(
            tree,
            (on(OnCut.RESTART_MATCH, "b"), player),
            (B, Player([says("Hello")])),
        )
        answer = await tree.ask()
    assert answer.texts == ["He", "ll", "o"]


async def test_the_deadline_covers_the_recovery(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    bounded = attrs.evolve(on(OnCut.RESTART_MATCH), timeouts=Timeouts(total_s=5))
    async with open_tree() as tree:
        await deploy(tree, (bounded, Player([cut("He"), stalls()])))
        began_at = trio.current_time()
        with pytest.raises(errors.DeadlineError):
            await tree.ask()
        assert trio.current_time() - began_at == pytest.approx(5.0)
        await tree.idle()


TOOL = TokenChunk(tool_calls=(ToolCallDelta(id="c", name="f"),))
SIGNED = TokenChunk(
    reasoning=ReasoningDelta(text="hm", signature=Signature("s", Dialect.ANTHROPIC))
)


@pytest.mark.parametrize("policy", [OnCut.RESTART_MATCH, OnCut.CONTINUE])
@pytest.mark.parametrize("last", [TOOL, SIGNED], ids=["tool call", "signed thought"])
async def test_what_cannot_be_repeated_is_not_taken_up(
    open_tree: OpenTree, autojump_clock: MockClock, policy: OnCut, last: TokenChunk
) -> None:
    async with open_tree() as tree:
        player = Player([Act((TokenChunk(text="He"), last))])
        await deploy(tree, (on(policy), player))
        with pytest.raises(errors.StreamCutError):
            await tree.ask()
    assert len(player.batches) == 1


# --- continue -----------------------------------------------------------------


async def test_continue_gives_the_model_its_own_beginning(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        player = Player([cut("Hel"), says("lo", " you")])
        await deploy(tree, (on(OnCut.CONTINUE), player))
        answer = await tree.ask("Greet me")
    assert answer.texts == ["Hel", "lo", " you"]
    assert player.batches[1].messages == (
        Message(Role.USER, "Greet me"),
        Message(Role.ASSISTANT, "Hel"),
    )
    assert answer.result is not None
    assert answer.result.recovered


async def test_continue_passes_a_deployment_that_takes_no_prefill(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    c = attrs.evolve(B, name="c", serves=["c"])
    blunt = Player(features={Feature.CHAT})
    async with open_tree() as tree:
        first = Player([cut("Hel"), cut()])
        last = Player([says("lo")])
        await deploy(tree, (on(OnCut.CONTINUE, "b", "c"), first), (B, blunt), (c, last))
        answer = await tree.ask()
    assert answer.texts == ["Hel", "lo"]
    assert blunt.batches == []


async def test_continue_without_anybody_who_can_is_the_first_error(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    blunt = Player([cut("Hel")], features={Feature.CHAT})
    async with open_tree() as tree:
        await deploy(tree, (on(OnCut.CONTINUE), blunt))
        with pytest.raises(errors.StreamCutError, match="ended its answer too early"):
            await tree.ask()
    assert len(blunt.batches) == 1


async def test_several_answers_are_not_continued(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        await deploy(tree, (on(OnCut.CONTINUE), Player([cut("Hel")])))
        with pytest.raises(errors.StreamCutError):
            await tree.ask(sampling=Sampling(n=2))


# --- buffer, and answers that are not streamed --------------------------------


@pytest.mark.parametrize(
    ("policy", "stream"), [(OnCut.BUFFER, True), (OnCut.ERROR, False)]
)
async def test_a_held_answer_is_made_again_without_the_client_noticing(
    open_tree: OpenTree, autojump_clock: MockClock, policy: OnCut, stream: bool
) -> None:
    async with open_tree() as tree:
        first = Player([cut("Hel"), cut("Other")])
        second = Player([says("Good", " day")])
        await deploy(tree, (on(policy, "b"), first), (B, second))
        answer = await tree.ask(stream=stream)
    assert answer.texts == ["Good", " day"]
    (served,) = answer.served
    assert served.recovered
    assert served.deployment == "b"


async def test_nothing_of_a_buffered_answer_is_sent_before_it_is_whole(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    sink = Collected()
    async with open_tree() as tree:
        await deploy(tree, (on(OnCut.BUFFER), Player([stalls("Hel", "lo")])))
        with trio.move_on_after(10):
            await tree.ask(sink=sink)
    assert (sink.served, sink.chunks) == ([], [])


async def test_an_answer_that_is_too_long_to_hold_goes_out_as_it_comes(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    sink = Collected()
    big = "x" * (9 * 1024 * 1024)
    async with open_tree() as tree:
        await deploy(
            tree, (on(OnCut.BUFFER, "b"), Player([cut(big, big)])), (B, Player())
        )
        with pytest.raises(errors.StreamCutError):
            await tree.ask(sink=sink)
    assert [len(text) for text in sink.texts] == [len(big)] * 2


# --- the client's own bytes ---------------------------------------------------

SOURCE = Source(Dialect.OPENAI_CHAT, b'{"model":"m"}', "m")


def raw(data: bytes, **more: object) -> RawChunk:
    return RawChunk(data=data, **more)  # type: ignore[arg-type]


EARLY = raw(b"role", has_content=False)
END = raw(b"done", has_content=False, finish_reason=FinishReason.STOP)


async def test_s8_raw_bytes_from_before_the_first_content_come_once_and_in_order(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        lost = Act((raw(b"lost", has_content=False),), errors.UpstreamError("broken"))
        whole = Act((EARLY, raw(b"text"), END))
        await deploy(tree, (A, Player([lost, whole])))
        answer = await tree.ask(source=SOURCE)
    assert [c.data for c in answer.chunks if isinstance(c, RawChunk)] == [
        b"role",
        b"text",
        b"done",
    ]


async def test_s8_raw_bytes_without_content_are_kept_up_to_a_bound(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    sink = Collected()
    async with open_tree() as tree:
        pings = Act((raw(b": ping\n\n", has_content=False),) * 100, hangs=True)
        await deploy(tree, (A, Player([pings])))
        with trio.move_on_after(10):
            await tree.ask(sink=sink, source=SOURCE)
    assert len(sink.chunks) == 100


async def test_who_wants_to_recover_is_asked_in_the_canonical_form(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    async with open_tree() as tree:
        player = Player()
        await deploy(tree, (on(OnCut.RESTART_MATCH), player))
        await tree.ask(source=SOURCE)
    assert player.batches[0].source is None


async def test_a_request_that_must_not_repeat_is_not_taken_up(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    once = attrs.evolve(
        on(OnCut.RESTART_MATCH), retry=attrs.evolve(TWICE, idempotent=False)
    )
    player = Player([cut("Hel")])
    async with open_tree() as tree:
        await deploy(tree, (once, player))
        with pytest.raises(errors.StreamCutError):
            await tree.ask()
    assert len(player.batches) == 1


async def test_a_refusal_while_a_cut_answer_is_taken_up_is_passed_over(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    refused = errors.ContextLengthError("too long", status=400)
    c = attrs.evolve(B, name="c", serves=["c"])
    async with open_tree() as tree:
        await deploy(
            tree,
            (on(OnCut.RESTART_MATCH, "b", "c"), Player([cut("Hel")] * 5)),
            (B, Player([fails(refused)] * 2)),
            (c, Player([says("Hello")])),
        )
        assert (await tree.ask()).texts == ["Hel", "lo"]
        await tree.serving.undeploy("c")
        with pytest.raises(errors.StreamCutError) as caught:
            await tree.ask()
    assert caught.value.message == (
        "m ended its answer too early (tried m: stream_cut, b: context_length)"
    )
