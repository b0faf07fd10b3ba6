"""Requests as a stage of a flow, and from a file to a file."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr import flow
from atomr.flow import Retry
from atomr_infer.errors import InvalidRequestError, RateLimitedError, UpstreamError
from atomr_infer.pipeline.flows.answer_file import (
    AnswerCounts,
    QuestionError,
    answer_file,
)
from atomr_infer.pipeline.flows.request_flow import Answered, answered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.testing import MockClock


@attrs.define
class Model:
    """Answers in capitals, a second each.

    Attributes:
        asked: how often it was asked each.
        most: the most requests at once.
        down_for: how often the word "down" fails.
    """

    asked: Counter[str] = attrs.field(factory=Counter)
    running: int = 0
    most: int = 0
    down_for: int = 10**6

    async def __call__(self, text: str) -> str:
        self.asked[text] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(1.0)
        finally:
            self.running -= 1
        if text == "wrong":
            raise InvalidRequestError("it is wrong")
        if text == "down" and self.asked[text] <= self.down_for:
            raise UpstreamError("it is down")
        if text == "busy" and self.asked[text] == 1:
            raise RateLimitedError("too many", retry_after_s=7.0)
        return text.upper()

    async def line(self, question: Any) -> str:
        return await self(question["text"])


async def test_each_item_has_its_answer_or_its_error_in_order(
    autojump_clock: MockClock,
) -> None:
    ask = Model()
    words = flow.from_iterable(["a", "wrong", "b"])
    found = await answered(words, ask, concurrency=3).collect()
    assert [(each.item, each.answer) for each in found] == [
        ("a", "A"), ("wrong", None), ("b", "B"),
    ]  # fmt: skip
    assert isinstance(found[1].error, InvalidRequestError)
    # What is wrong is not asked again.
    assert ask.asked["wrong"] == 1


async def test_what_may_pass_is_asked_again_as_often_as_is_said(
    autojump_clock: MockClock,
) -> None:
    ask = Model(down_for=2)
    retry = Retry(attempts=3, backoff_s=1.0)
    [found] = await answered(flow.from_iterable(["down"]), ask, retry=retry).collect()
    assert attrs.evolve(found, took_s=0.0) == Answered("down", "DOWN", None, 3, 0.0)
    assert found.took_s == pytest.approx(6.0)
    ask = Model()
    [lost] = await answered(flow.from_iterable(["down"]), ask, retry=retry).collect()
    assert (lost.attempts, str(lost.error)) == (3, "it is down")


async def test_the_upstream_says_how_long_to_wait(autojump_clock: MockClock) -> None:
    [found] = await answered(flow.from_iterable(["busy"]), Model()).collect()
    assert found.answer == "BUSY"
    assert found.took_s == pytest.approx(9.0)


async def test_nothing_is_taken_before_there_is_a_place_for_it(
    autojump_clock: MockClock,
) -> None:
    taken: list[int] = []

    def words() -> Iterator[str]:
        for number in range(20):
            taken.append(number)
            yield str(number)

    ask = Model()
    async with answered(flow.from_iterable(words()), ask, concurrency=3).open(
        max_demand=1
    ) as stream:
        assert (await anext(stream)).answer == "0"
        await trio.sleep(60.0)
        # A consumer that does nothing holds the source back.
        assert len(taken) == 4
    assert ask.most == 3


async def test_a_bug_is_no_result(autojump_clock: MockClock) -> None:
    async def broken(_: str) -> str:
        raise KeyError("oops")

    with pytest.raises(KeyError, match="oops"):
        await answered(flow.from_iterable(["a"]), broken).collect()


# --- files --------------------------------------------------------------------------


def write(path: Path, *texts: str) -> Path:
    lines = [json.dumps({"id": n, "text": text}) for n, text in enumerate(texts)]
    path.write_text("\n".join(lines))
    return path


def read(path: Path) -> dict[Any, Any]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["id"]: line.get("answer", line.get("error")) for line in lines}


ONCE = Retry(attempts=1)


async def test_a_file_of_questions_becomes_a_file_of_answers(tmp_path: Path) -> None:
    questions, answers = write(tmp_path / "q", "a", "wrong", "bä"), tmp_path / "a"
    ask = Model()

    async def quick(question: Any) -> str:
        if question["text"] == "wrong":
            raise InvalidRequestError("it is wrong")
        ask.asked[question["text"]] += 1
        return str(question["text"]).upper()

    counts = await answer_file(questions, answers, quick, retry=ONCE)
    assert counts == AnswerCounts(answered=2, failed=1)
    wrong = {"kind": "invalid_request", "message": "it is wrong"}
    assert read(answers) == {0: "A", 1: wrong, 2: "BÄ"}
    # Again: what failed is asked, and nothing else.
    counts = await answer_file(questions, answers, quick, retry=ONCE)
    assert counts == AnswerCounts(failed=1, before=2)
    assert ask.asked == {"a": 1, "bä": 1}
    assert len(answers.read_text().splitlines()) == 4


async def test_who_was_stopped_goes_on_and_half_a_line_is_taken_away(
    tmp_path: Path,
) -> None:
    questions, answers = write(tmp_path / "q", *"abcdef"), tmp_path / "a"
    asked: Counter[str] = Counter()
    stop = trio.CancelScope()

    async def ask(question: Any) -> str:
        asked[question["text"]] += 1
        if question["text"] == "d" and asked["d"] == 1:
            stop.cancel()
            await trio.sleep_forever()
        return str(question["text"]).upper()

    with stop:
        await answer_file(questions, answers, ask, concurrency=1)
    assert read(answers) == {0: "A", 1: "B", 2: "C"}
    with answers.open("a") as file:
        file.write('{"id": 3, "ans')  # a crash in the middle
    counts = await answer_file(questions, answers, ask, concurrency=1)
    assert counts == AnswerCounts(answered=3, before=3)
    assert read(answers) == dict(enumerate("ABCDEF"))
    assert asked == {**dict.fromkeys("abcef", 1), "d": 2}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"id": 1}\n{"id": 1}\n', "q:2: the id 1 is that of line 1"),
        ('{"id": 1}\n\nnonsense\n', "q:3: it is no JSON"),
        ("[1]\n", "q:1: it is no JSON object"),
        ('{"text": "a"}', 'q:1: it has no "id"'),
    ],
)
async def test_a_line_that_is_no_question_is_named(
    tmp_path: Path, text: str, told: str
) -> None:
    questions = tmp_path / "q"
    questions.write_text(text)

    async def ask(_: Any) -> str:
        return ""

    with pytest.raises(QuestionError, match=told):
        await answer_file(questions, tmp_path / "a", ask)


async def test_a_text_and_a_number_are_two_ids_and_half_a_line_may_be_all(
    tmp_path: Path,
) -> None:
    questions, answers = tmp_path / "q", tmp_path / "a"
    questions.write_text('{"id": 1}\n{"id": "1"}\n')
    answers.write_text('{"id": 1, "answer": ' + "x" * 70_000)

    async def ask(_: Any) -> None:
        return None

    counts = await answer_file(questions, answers, ask)
    assert counts == AnswerCounts(answered=2)
    assert read(answers) == {1: None, "1": None}


async def test_an_answer_that_no_utf_8_can_say_is_written_as_json_says_it(
    tmp_path: Path,
) -> None:
    questions, answers = tmp_path / "q", tmp_path / "a"
    questions.write_text('{"id": "\\ud83d"}\n')

    async def ask(_: Any) -> str:
        return "half a face: \ud83d, \u00e9"

    assert await answer_file(questions, answers, ask) == AnswerCounts(answered=1)
    assert read(answers) == {"\ud83d": "half a face: \ud83d, \u00e9"}
    assert await answer_file(questions, answers, ask) == AnswerCounts(before=1)


async def test_a_full_disk_is_told_and_nothing_more_is_asked(tmp_path: Path) -> None:
    questions = write(tmp_path / "q", *map(str, range(30)))
    asked: list[str] = []

    async def ask(question: Any) -> str:
        asked.append(question["text"])
        return "x"

    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        await answer_file(questions, tmp_path / "full", ask, concurrency=2)
    assert len(asked) <= 6
