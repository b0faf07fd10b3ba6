"""A cheap model first, and a dearer one where its answer will not do."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr_infer.errors import (
    BudgetExceededError,
    ContentFilterError,
    DeadlineError,
    RateLimitedError,
    UpstreamError,
)
from atomr_infer.model.asks import FormatKind, ResponseFormat
from atomr_infer.model.batch import FinishReason, Sampling
from tests.pipeline.conftest import Heard, OpenTree, cascade, model

if TYPE_CHECKING:
    from trio.testing import MockClock


SMALL = model("small", reply="a small answer")
LARGE = model("large", reply="a large answer")
JUDGED = ["judge (judge: refused)"]


async def test_an_answer_that_is_accepted_asks_nobody_else(open_tree: OpenTree) -> None:
    async with open_tree(SMALL, LARGE, cascade("small", "large")) as tree:
        heard = await tree.ask()
        assert heard.text == "a small answer"
        assert heard.verdicts == ["small (accepted)"]
        assert tree.runners["large"].batches == ()
        # Three tokens are read at a tenth of a cent, and three written at two.
        assert heard.done is not None
        assert heard.done.cost is not None
        assert heard.done.cost.usd == Decimal("0.009")
        assert tree.ledger() == [("small", 6)]


async def test_an_answer_that_is_refused_is_followed_by_the_next_and_both_are_paid(
    open_tree: OpenTree,
) -> None:
    stages = ({"model": "small", "refusals": ["A SMALL"]}, "large")
    async with open_tree(SMALL, LARGE, cascade(*stages)) as tree:
        heard = await tree.ask()
        assert heard.text == "a large answer"
        assert heard.verdicts == ["small (refused: refusal='A SMALL')", "large"]
        assert heard.done is not None
        assert heard.done.cost is not None
        assert heard.done.cost.usd == Decimal("0.018")
        assert tree.ledger() == [("small", 6), ("large", 6)]
        # What the client is told is what the answer has, and no more.
        usage = heard.whole.usage
        assert usage is not None
        assert (usage.prompt_tokens, usage.output_tokens) == (3, 3)


@pytest.mark.parametrize(
    ("small", "stage", "why"),
    [
        ({"tokens": 0}, {}, "chars=0"),
        ({"reply": "short"}, {"min_chars": 9}, "chars=5"),
        ({"refusal": "I will not."}, {}, "refusal"),
        ({"reply": "no digits"}, {"matches": r"\d"}, "matches"),
        ({"reply": "{"}, {"json": True}, "json"),
        ({"reply": "ends"}, {"finish": ["length"]}, "finish=stop"),
        (
            {"reply": "x"},
            {"validator": "python:tests.pipeline.validators:wants_digits"},
            "validator: there are no digits",
        ),
        (
            {"reply": "x"},
            {"validator": "python:tests.pipeline.validators:waits_and_refuses"},
            "validator: not accepted",
        ),
        (
            {"reply": "x"},
            {"validator": "python:tests.pipeline.validators:crashes"},
            "validator: KeyError",
        ),
        (
            {"reply": "x"},
            {"validator": "python:tests.pipeline.validators:says_much"},
            "validator: x\\nrequest r-1 \\r\\x1b[2K" + "y" * 90 + "...",
        ),
    ],
)
async def test_each_judge_says_why_it_refuses(
    open_tree: OpenTree,
    small: dict[str, Any],
    stage: dict[str, Any],
    why: str,
) -> None:
    judged = {"model": "small", **stage}
    async with open_tree(
        model("small", **small), LARGE, cascade(judged, "large")
    ) as tree:
        heard = await tree.ask()
    assert heard.text == "a large answer"
    assert heard.verdicts == [f"small (refused: {why})", "large"]


async def test_an_answer_that_was_cut_off_by_its_length_is_refused(
    open_tree: OpenTree,
) -> None:
    async with open_tree(SMALL, LARGE, cascade("small", "large")) as tree:
        heard = await tree.ask(sampling=Sampling(max_tokens=2))
    assert heard.verdicts == ["small (refused: finish=length)", "large"]
    assert heard.whole.choice().finish_reason is FinishReason.LENGTH


async def test_an_answer_without_the_form_that_was_asked_for_is_refused(
    open_tree: OpenTree,
) -> None:
    schema = b'{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}'
    form = ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=schema)
    small = model("small", reply='{"n": "x"}', json=True)
    large = model("large", reply='{"n": 7}', json=True)
    async with open_tree(small, large, cascade("small", "large")) as tree:
        heard = await tree.ask(response_format=form)
    assert heard.text == '{"n": 7}'
    assert heard.verdicts == ["small (refused: schema: $.n is no integer)", "large"]


async def test_a_stage_that_cannot_do_what_is_asked_is_passed_over(
    open_tree: OpenTree,
) -> None:
    large = model("large", reply="{}", json=True)
    async with open_tree(SMALL, large, cascade("small", "large")) as tree:
        form = ResponseFormat(kind=FormatKind.JSON_OBJECT)
        heard = await tree.ask(response_format=form)
    assert heard.text == "{}"
    assert heard.verdicts == ["small (failed)", "large"]


@pytest.mark.parametrize(
    ("reply", "text", "verdicts"),
    [
        ("Yes.", "a small answer", ["small (accepted)", "judge (judge: accepted)"]),
        (
            "no",
            "a large answer",
            ["small (refused: judge judge: no 'yes')", *JUDGED, "large"],
        ),
        (
            "no\nrequest r-1 model=forged\r\x1b[2K " + "and so on " * 100,
            "a large answer",
            ["small (refused: judge judge: no 'yes')", *JUDGED, "large"],
        ),
        (
            "",
            "a large answer",
            ["small (refused: judge judge: no 'yes')", *JUDGED, "large"],
        ),
    ],
)
async def test_a_model_may_judge(
    open_tree: OpenTree, reply: str, text: str, verdicts: list[str]
) -> None:
    prompt = "Q {question} A {answer}"
    stage = {"model": "small", "classifier": {"model": "judge", "prompt": prompt}}
    judge = model("judge", reply=reply)
    async with open_tree(SMALL, LARGE, judge, cascade(stage, "large")) as tree:
        heard = await tree.ask("is {answer} here")
        asked = tree.runners["judge"].batches[0].messages[0].text
        paid = [name for name, _ in tree.ledger()]
    assert heard.text == text
    assert heard.verdicts == verdicts
    assert asked == "Q is {answer} here A a small answer"
    assert sorted(paid) == sorted(v.partition(" ")[0] for v in verdicts)


async def test_nobodys_words_are_logged_and_none_forges_a_line(
    open_tree: OpenTree, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "atomr_infer")
    stage = {
        "model": "small",
        "validator": "python:tests.pipeline.validators:crashes",
        "classifier": {"model": "judge", "prompt": "Q: {question}\nA: {answer}"},
    }
    accepted = {"model": "small", "classifier": stage["classifier"]}
    small = model("small", reply="my own words\nforged\r\n")
    judge = model("judge")  # what it is asked comes back
    for judged in (stage, accepted):
        async with open_tree(small, LARGE, judge, cascade(judged, "large")) as tree:
            heard = await tree.ask("a secret question\nforged")
        assert heard.text == "a large answer"
    said = [record.getMessage() for record in caplog.records]
    assert any("stages=[small seen" in each for each in said)
    for word in ("forged", "own words", "secret", "\n", "\r"):
        assert not any(word in each for each in said), word


async def test_a_judge_that_fails_accepts_nothing(open_tree: OpenTree) -> None:
    stage = {"model": "small", "classifier": {"model": "judge"}}
    judge = model("judge", fail_after=0)
    async with open_tree(SMALL, LARGE, judge, cascade(stage, "large")) as tree:
        heard = await tree.ask()
    assert heard.text == "a large answer"
    assert heard.verdicts[0] == "small (refused: judge judge: upstream)"


# --- faults ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["upstream", "rate_limited", "overloaded", "engine"])
@pytest.mark.parametrize("after", [0, 2])
async def test_a_stage_that_fails_is_followed_by_the_next_one_wherever_it_was(
    open_tree: OpenTree, kind: str, after: int
) -> None:
    small = model("small", reply="a small answer", fail_after=after, fail_kind=kind)
    async with open_tree(small, LARGE, cascade("small", "large")) as tree:
        heard = await tree.ask()
        paid = tree.ledger()
    assert heard.text == "a large answer"
    assert heard.verdicts == ["small (failed)", "large"]
    # What a cut stage had written is paid for.
    assert [name for name, _ in paid] == (["small", "large"] if after else ["large"])


async def test_a_stage_is_tried_again_as_its_own_deployment_says(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    small = model("small", retries=3, fail_after=0)
    async with open_tree(small, LARGE, cascade("small", "large")) as tree:
        await tree.ask()
        assert len(tree.runners["small"].batches) == 3


async def test_a_whole_cascade_is_not_made_again(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    failing = [
        model(name, fail_after=0, fail_kind="rate_limited") for name in ("a", "b")
    ]
    async with open_tree(*failing, cascade("a", "b")) as tree:
        with pytest.raises(RateLimitedError):
            await tree.ask()
        asked = [len(tree.runners[name].batches) for name in ("a", "b")]
    assert asked == [1, 1]


async def test_a_stage_that_hangs_is_left_after_its_time(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    small = model("small", reply="a small answer", hang_after=1)
    stage = {"model": "small", "timeout_s": 5.0}
    async with open_tree(small, LARGE, cascade(stage, "large")) as tree:
        began_at = trio.current_time()
        heard = await tree.ask()
        took_s = trio.current_time() - began_at
        assert tree.runners["small"].active == 0
        paid = [name for name, _ in tree.ledger()]
    assert heard.text == "a large answer"
    assert took_s == pytest.approx(5.0)
    assert heard.verdicts == ["small (failed)", "large"]
    assert paid == ["small", "large"]


async def test_the_clients_own_bound_holds_over_all_stages(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    slow = [model(name, hang_after=0) for name in ("a", "b")]
    stage = {"model": "a", "timeout_s": 5.0}
    async with open_tree(*slow, cascade(stage, "b")) as tree:
        began_at = trio.current_time()
        with pytest.raises(DeadlineError):
            await tree.ask(timeout_s=8.0)
        assert trio.current_time() - began_at == pytest.approx(8.0)
        assert [r.active for r in tree.runners.values()] == [0, 0]


async def test_what_is_withheld_for_its_content_is_not_asked_of_others(
    open_tree: OpenTree,
) -> None:
    small = model("small", fail_after=0, fail_kind="content_filter")
    async with open_tree(small, LARGE, cascade("small", "large")) as tree:
        with pytest.raises(ContentFilterError):
            await tree.ask()
        assert tree.runners["large"].batches == ()


async def test_when_the_last_stage_fails_an_answer_that_was_not_accepted_is_given(
    open_tree: OpenTree,
) -> None:
    large = model("large", fail_after=1)
    stage = {"model": "small", "min_chars": 99}
    # It had not been passed on, though it had begun.
    async with open_tree(SMALL, large, cascade(stage, "large")) as tree:
        with pytest.raises(UpstreamError):
            await tree.ask()
    large = model("large", fail_after=0)
    async with open_tree(SMALL, large, cascade(stage, "large")) as tree:
        heard = await tree.ask()
    assert heard.text == "a small answer"
    assert heard.served is not None
    assert heard.served.warnings == (
        "small was refused (chars=14); the next one failed: upstream",
    )


async def test_when_the_last_stage_fails_the_client_may_be_told_so_instead(
    open_tree: OpenTree,
) -> None:
    stage = {"model": "small", "min_chars": 99}
    options: dict[str, Any] = {"exhausted": "error"}
    large = model("large", fail_after=0)
    async with open_tree(SMALL, large, cascade(stage, "large", **options)) as tree:
        with pytest.raises(UpstreamError, match="as its script says"):
            await tree.ask()


async def test_when_no_answer_is_accepted_the_client_may_be_told_so(
    open_tree: OpenTree,
) -> None:
    stages = [{"model": name, "min_chars": 99} for name in ("small", "large")]
    async with open_tree(SMALL, LARGE, cascade(*stages, exhausted="error")) as tree:
        with pytest.raises(UpstreamError, match="large: chars=14") as raised:
            await tree.ask()
        assert raised.value.code == "answer_refused"
        assert [name for name, _ in tree.ledger()] == ["small", "large"]


async def test_a_stream_that_breaks_when_it_was_passed_on_is_an_error(
    open_tree: OpenTree,
) -> None:
    large = model("large", reply="one two three", fail_after=2)
    stage = {"model": "small", "min_chars": 99}
    heard = Heard()
    async with open_tree(SMALL, large, cascade(stage, "large")) as tree:
        with pytest.raises(UpstreamError):
            await tree.ask(heard=heard)
        assert [name for name, _ in tree.ledger()] == ["small", "large"]
    assert heard.text == "one two"


@pytest.mark.parametrize("where", ["small", "judge", "large"])
async def test_a_client_that_leaves_ends_whatever_is_asked_and_it_is_paid(
    open_tree: OpenTree, autojump_clock: MockClock, where: str
) -> None:
    models = [
        model(name, reply="some words of it", hang_after=1 if name == where else None)
        for name in ("small", "judge", "large")
    ]
    stage = {"model": "small", "classifier": {"model": "judge"}}
    async with open_tree(*models, cascade(stage, "large")) as tree:
        with trio.move_on_after(5.0) as scope:
            await tree.ask()
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert all(runner.active == 0 for runner in tree.runners.values())
        assert all(
            replica.outstanding == 0
            for name in ("small", "judge", "large", "auto")
            for replica in tree.serving.replicas(name)
        )
        paid = [name for name, _ in tree.ledger()]
    assert (
        paid
        == ["small", "judge", "large"][: ["small", "judge", "large"].index(where) + 1]
    )


async def test_a_budget_that_refuses_the_second_stage_leaves_the_first_ones_answer(
    open_tree: OpenTree,
) -> None:
    refusing = model("large", fail_after=0, fail_kind="budget_exceeded")
    stage = {"model": "small", "min_chars": 99}
    async with open_tree(SMALL, refusing, cascade(stage, "large")) as tree:
        heard = await tree.ask()
    assert heard.text == "a small answer"
    async with open_tree(
        SMALL, refusing, cascade(stage, "large", exhausted="error")
    ) as tree:
        with pytest.raises(BudgetExceededError):
            await tree.ask()


# --- streams --------------------------------------------------------------------


async def test_nothing_is_sent_before_it_is_judged_and_the_last_stage_streams(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    times: list[tuple[str, float]] = []

    class Timed(Heard):
        async def chunk(self, chunk: object) -> None:
            text = getattr(chunk, "text", "")
            if text:
                times.append((text, trio.current_time() - began_at))

    slow = [model(name, reply="x y z", delay_s=1.0) for name in ("small", "large")]
    stage = {"model": "small", "min_chars": 99}
    async with open_tree(*slow, cascade("small", "large")) as tree:
        began_at = trio.current_time()
        await tree.ask(heard=Timed())
    assert [round(at) for _, at in times] == [3, 3, 3]
    times.clear()
    async with open_tree(*slow, cascade(stage, "large")) as tree:
        began_at = trio.current_time()
        await tree.ask(heard=Timed())
    assert [round(at) for _, at in times] == [4, 5, 6]


async def test_an_answer_may_be_sent_when_its_beginning_was_judged(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    times: list[float] = []

    class Timed(Heard):
        async def chunk(self, chunk: object) -> None:
            if getattr(chunk, "text", ""):
                times.append(trio.current_time() - began_at)

    small = model("small", reply="one two three four", delay_s=1.0)
    options: dict[str, Any] = {"stream": "commit", "commit_chars": 6}
    refusing = {"model": "small", "refusals": ["one two"]}
    async with open_tree(small, LARGE, cascade("small", "large", **options)) as tree:
        began_at = trio.current_time()
        done = await tree.ask(heard=Timed())
        assert [round(at) for at in times] == [2, 2, 3, 4]
        assert done.verdicts == ["small (accepted)"]
        times.clear()
        began_at = trio.current_time()
        # Who does not stream has nothing of it before it is whole.
        await tree.ask(heard=Timed(), stream=False)
        assert [round(at) for at in times] == [4, 4, 4, 4]
    async with open_tree(small, LARGE, cascade(refusing, "large", **options)) as tree:
        heard = await tree.ask()
    assert heard.text == "a large answer"
    assert heard.verdicts == ["small (refused: refusal='one two')", "large"]


async def test_a_stage_that_is_refused_early_has_ended_before_the_next_is_asked(
    open_tree: OpenTree, autojump_clock: MockClock
) -> None:
    running: list[int] = []

    class Looking(Heard):
        async def chunk(self, chunk: Any) -> None:
            await super().chunk(chunk)
            running.append(tree.runners["small"].active)

    small = model("small", reply="one two " * 50, delay_s=1.0)
    stage = {"model": "small", "refusals": ["one two"]}
    auto = cascade(stage, "large", stream="commit", commit_chars=6)
    async with open_tree(small, LARGE, auto) as tree:
        heard = await tree.ask(heard=Looking())
    assert heard.text == "a large answer"
    assert set(running) == {0}


async def test_what_was_sent_early_cannot_be_taken_back(open_tree: OpenTree) -> None:
    small = model("small", reply="one two three four", fail_after=3)
    options: dict[str, Any] = {"stream": "commit", "commit_chars": 6}
    heard = Heard()
    async with open_tree(small, LARGE, cascade("small", "large", **options)) as tree:
        with pytest.raises(UpstreamError):
            await tree.ask(heard=heard)
        assert tree.runners["large"].batches == ()
    assert heard.text == "one two three"


# --- composed -------------------------------------------------------------------


async def test_cascades_may_be_stages_and_all_of_it_is_told(
    open_tree: OpenTree, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "atomr_infer.serving.requests.report")
    inner = cascade({"model": "small", "min_chars": 99}, "large", name="inner")
    outer = cascade({"model": "inner", "refusals": ["a large"]}, "best")
    best = model("best", reply="the best answer")
    async with open_tree(SMALL, LARGE, best, inner, outer) as tree:
        heard = await tree.ask()
        assert tree.ledger() == [("small", 6), ("large", 6), ("best", 6)]
    assert heard.text == "the best answer"
    assert heard.done is not None
    assert heard.done.cost is not None
    assert heard.done.cost.usd == Decimal("0.027")
    line = next(m for m in caplog.messages if "model=auto" in m)
    assert "stages=[inner cascade" in line
    assert "[small seen" in line
    assert "cost=$0.027" in line


async def test_a_request_of_a_cascade_leaves_no_task_behind(
    open_tree: OpenTree,
) -> None:
    async with open_tree(SMALL, LARGE, cascade("small", "large")) as tree:
        await tree.ask()
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(5):
            await tree.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
