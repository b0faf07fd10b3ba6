"""Whether an answer will do, as far as the answer itself says.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from atomr_infer.model.asks import FormatKind
from atomr_infer.model.collected import Collected
from atomr_infer.pipeline.asking.words import text_of
from atomr_infer.pipeline.cascades.json_schema import problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from atomr_infer.model.asks import ResponseFormat
    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.pipeline.cascades.options import CascadeStage

_HEAD_CHARS = 200
"""Where a refusal stands; a phrase further on may be a quotation."""


def judge(
    stage: CascadeStage, batch: ExecuteBatch, chunks: Sequence[TokenChunk]
) -> str | None:
    """Return why a whole answer is refused; None: nothing refuses it.

    Args:
        stage: whose answer.
        batch: what was asked.
        chunks: all of the answer.
    """
    answer = Collected()
    for chunk in chunks:
        answer.add(chunk)
    for index in range(batch.sampling.n):
        choice = answer.choice(index)
        finish = "" if choice.finish_reason is None else choice.finish_reason.value
        if finish not in stage.finish:
            return f"finish={finish or 'none'}"
        if choice.refusal:
            return "refusal"
        if finish == "content_filter" or choice.tool_calls:
            continue  # there is no text to judge
        why = next(_of_text(stage, batch, choice.text), None)
        if why is not None:
            return why
    return judge_logprobs(stage, chunks)


def judge_beginning(stage: CascadeStage, chunks: Sequence[TokenChunk]) -> str | None:
    """Return why an answer is refused by its beginning; None: it may be sent."""
    if any(chunk.refusal for chunk in chunks):
        return "refusal"
    said = next(_refusals(stage, text_of(chunks)), None)
    return said or judge_logprobs(stage, chunks)


def _of_text(stage: CascadeStage, batch: ExecuteBatch, text: str) -> Iterator[str]:
    if len(text.strip()) < stage.min_chars:
        yield f"chars={len(text.strip())}"
    yield from _refusals(stage, text)
    if stage.matches is not None and re.search(stage.matches, text) is None:
        yield "matches"
    form = batch.response_format
    if stage.json or (form is not None and form.kind is not FormatKind.TEXT):
        yield from _of_json(form, text)


def _refusals(stage: CascadeStage, text: str) -> Iterator[str]:
    head = text[:_HEAD_CHARS].casefold()
    for phrase in stage.refusals:
        if phrase.casefold() in head:
            yield f"refusal={phrase!r}"


def _of_json(form: ResponseFormat | None, text: str) -> Iterator[str]:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # Not JSON, a half of a pair that no UTF-8 can say, or too deep to be read.
        yield "json"
        return
    if form is None or form.kind is FormatKind.TEXT:
        return
    if form.schema is not None:
        schema = msgspec.json.decode(form.schema)
        yield from (f"schema: {problem}" for problem in problems(value, schema))
    elif not isinstance(value, dict):
        yield "json: no object"


# --- how sure the model was ---------------------------------------------------------


class _Token(msgspec.Struct):
    logprob: float | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


def judge_logprobs(stage: CascadeStage, chunks: Iterable[TokenChunk]) -> str | None:
    """Return why an answer is refused for how unsure its model was."""
    if stage.min_logprob is None:
        return None
    mean = mean_logprob(chunks)
    if mean is None:
        return "logprob=none"
    return None if mean >= stage.min_logprob else f"logprob={mean:.3f}"


def mean_logprob(chunks: Iterable[TokenChunk]) -> float | None:
    """Return the mean log probability of the tokens; None: it is not known."""
    found: list[float] = []
    for chunk in chunks:
        if chunk.logprobs is None:
            continue
        try:
            told = msgspec.json.decode(chunk.logprobs, type=_Logprobs | None)
        except (msgspec.DecodeError, RecursionError):
            continue  # the upstream says it in a form of its own
        tokens = (told and told.content) or ()
        found += [each.logprob for each in tokens if each.logprob is not None]
    return sum(found) / len(found) if found else None
