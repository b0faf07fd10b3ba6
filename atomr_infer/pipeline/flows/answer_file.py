"""A file of questions to a file of answers, which may be stopped and gone on with.

Both have a JSON object in each line.  A question has an ``id``; its line of the other
file is ``{"id": ..., "answer": ...}``, or ``{"id": ..., "error": {"kind": ...,
"message": ...}}``.  A line is written as soon as its answer is there.

Who goes on reads what is there, and asks for the rest: questions that have an answer
are passed over, and those that failed are asked again; the last line of an id counts.
A line that was cut off in the middle, by a crash or a full disk, is taken away first.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import trio

from atomr import flow
from atomr_infer.pipeline.flows.request_flow import AGAIN, Answered, answered

if TYPE_CHECKING:
    from pathlib import Path

    from atomr.flow import Retry

Question: TypeAlias = Mapping[str, Any]
"""One line of the file of questions."""

_CHUNK_BYTES = 1 << 16


@attrs.frozen
class AnswerCounts:
    """What became of the questions of a file.

    Attributes:
        answered: those that have an answer now and had none before.
        failed: those that have failed.
        before: those that had an answer before.
    """

    answered: int = 0
    failed: int = 0
    before: int = 0


class QuestionError(ValueError):
    """A line of a file is not what it must be.

    Attributes:
        path: the file.
        line: which one, from 1.
    """

    def __init__(self, path: Path, line: int, problem: str) -> None:
        self.path = path
        self.line = line
        super().__init__(f"{path}:{line}: {problem}")


async def answer_file(
    questions: Path,
    answers: Path,
    ask: Callable[[Question], Awaitable[Any]],
    *,
    concurrency: int = 8,
    retry: Retry = AGAIN,
) -> AnswerCounts:
    """Ask the questions of a file that have no answer in another one yet.

    Args:
        questions: a JSON object in each line, with an ``id`` that no other one has.
        answers: where the answers are, or come; nobody else may write there.
        ask: returns what is written as the answer of a line, as JSON can say it.
        concurrency: requests under way at once.
        retry: how often a request is made that fails in a way that may pass.

    Raises:
        QuestionError: a line is no such object.
        OSError: a file cannot be read or written; what is written is whole.

    Cancellation: what is written is there; go on by calling it again.
    """
    has_answer = await trio.to_thread.run_sync(_known, answers)
    before = {key for key, is_there in has_answer.items() if is_there}
    made = partial(_lines, questions, passed_over=before)
    results = answered(
        flow.from_async_iterable(made), ask, concurrency=concurrency, retry=retry,
        ordered=False,
    )  # fmt: skip
    good = bad = 0
    async with (
        await trio.open_file(answers, "ab", buffering=0) as file,
        results.open(max_demand=1) as stream,
    ):
        async for each in stream:
            # Whoever is cancelled here would leave half a line.
            with trio.CancelScope(shield=True):
                left = _line(each)
                while left:
                    left = left[await file.write(left) :]
            good += each.error is None
            bad += each.error is not None
    return AnswerCounts(answered=good, failed=bad, before=len(before))


def _line(each: Answered[Question, Any]) -> bytes:
    told: dict[str, Any] = {"id": each.item["id"]}
    if each.error is None:
        told["answer"] = each.answer
    else:
        told["error"] = {"kind": each.error.kind, "message": each.error.message}
    text = json.dumps(told, ensure_ascii=False)
    # Half of a pair, which a model may send: its escape is JSON's own.
    return text.encode(errors="backslashreplace") + b"\n"


async def _lines(path: Path, *, passed_over: set[str]) -> AsyncIterator[Question]:
    """Yield the questions of a file that are to be asked."""
    seen: dict[str, int] = {}
    async with await trio.open_file(path, "rb") as file:
        number = 0
        async for line in file:
            number += 1
            if not line.strip():
                continue
            question = _object(path, number, line)
            key = _id(path, number, question)
            if key in seen:
                told = f"the id {question['id']!r} is that of line {seen[key]}"
                raise QuestionError(path, number, told)
            seen[key] = number
            if key not in passed_over:
                yield question


def _known(path: Path) -> dict[str, bool]:
    """Return which ids there are lines of, and whether the last one is an answer."""
    if not path.is_file():  # or a pipe, which cannot be read
        return {}
    _cut_half_a_line(path)
    found: dict[str, bool] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            told = _object(path, number, line)
            found[_id(path, number, told)] = "answer" in told
    return found


def _cut_half_a_line(path: Path) -> None:
    with path.open("r+b") as file:
        end = size = file.seek(0, 2)
        while end:
            begin = max(0, end - _CHUNK_BYTES)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        if end < size:
            file.truncate(end)


def _object(path: Path, number: int, line: bytes) -> Question:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise QuestionError(path, number, f"it is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise QuestionError(path, number, "it is no JSON object")
    return found


def _id(path: Path, number: int, told: Question) -> str:
    """Return an id so that 1 and "1" are two."""
    if not isinstance(told.get("id"), str | int):
        raise QuestionError(path, number, 'it has no "id", a text or a number')
    return json.dumps(told["id"])
