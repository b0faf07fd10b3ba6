"""What OpenAI does not know is said in its own words, or left out."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from atomr_infer.model.asks import Effort, Reasoning, Tool
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    CacheHint,
    FilePart,
    ImagePart,
    Inline,
    ReasoningPart,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atomr_infer.wire.openai.fitting import ChatTraits, fitted

ASK = ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, "hi"),))
STRICT = ChatTraits(extensions=False)
FOREIGN = Signature("s", Dialect.ANTHROPIC)
CACHE = CacheHint(ttl="1h")


def ask(*content: Any) -> ExecuteBatch:
    return attrs.evolve(ASK, messages=(Message(Role.ASSISTANT, content),))


def test_a_request_that_fits_is_left_as_it_is() -> None:
    for traits in (STRICT, ChatTraits()):
        assert fitted(ASK, traits).batch == ASK


def test_what_a_model_does_not_sample_by_is_not_sent() -> None:
    batch = attrs.evolve(ASK, sampling=Sampling(temperature=0.5, max_tokens=3, n=2))
    traits = ChatTraits(sampling=frozenset({"max_tokens"}))

    assert fitted(batch, traits).batch.sampling == Sampling(max_tokens=3)


@pytest.mark.parametrize(("wanted", "sent"), [(9, 5), (5, 5), (None, None)])
def test_a_limit_beyond_the_model_is_lowered_and_says_so(
    wanted: int | None, sent: int | None
) -> None:
    batch = attrs.evolve(ASK, sampling=Sampling(max_tokens=wanted))
    found = fitted(batch, ChatTraits(max_output_tokens=5))

    assert found.batch.sampling == Sampling(max_tokens=sent)
    lowered = ("max_tokens was lowered to 5",)
    assert found.warnings == (lowered if wanted == 9 else ())
    assert fitted(batch, ChatTraits()).batch == batch


def test_borders_of_a_prompt_cache_stay_away_from_openai_itself() -> None:
    batch = attrs.evolve(
        ask(
            TextPart("a", cache=CACHE),
            ToolCallPart(id="c", name="f", arguments="{}", signature=FOREIGN),
        ),
        tools=(Tool(name="f", cache=CACHE),),
    )
    strict = fitted(batch, STRICT).batch

    assert (
        strict.messages
        == ask(TextPart("a"), ToolCallPart(id="c", name="f", arguments="{}")).messages
    )
    assert strict.tools == (Tool(name="f"),)
    assert fitted(batch, ChatTraits()).batch == batch


@pytest.mark.parametrize(
    ("part", "strict", "lenient"),
    [
        (ReasoningPart(text="Hm"), False, True),
        (ReasoningPart(text="Hm", signature=FOREIGN), False, False),
        (ReasoningPart(data=FOREIGN), False, False),
        (
            ReasoningPart(text="Hm", signature=Signature("s", Dialect.OPENAI_CHAT)),
            False,
            True,
        ),
    ],
)
def test_a_thought_that_another_provider_signed_is_dropped(
    part: ReasoningPart, strict: bool, lenient: bool
) -> None:
    batch = ask(part, TextPart("a"))
    for traits, kept in ((STRICT, strict), (ChatTraits(), lenient)):
        [message] = fitted(batch, traits).batch.messages
        assert (part in message.content) is kept
        assert message.text == "a"


@pytest.mark.parametrize(
    ("budget", "effort"),
    [
        (0, Effort.NONE),
        (1, Effort.MINIMAL),
        (1024, Effort.MINIMAL),
        (4096, Effort.LOW),
        (16384, Effort.MEDIUM),
        (16385, Effort.HIGH),
    ],
)
def test_a_budget_of_reasoning_becomes_an_effort_and_says_so(
    budget: int, effort: Effort
) -> None:
    batch = attrs.evolve(ASK, reasoning=Reasoning(budget_tokens=budget))
    found = fitted(batch, STRICT)

    assert found.batch.reasoning is not None
    assert found.batch.reasoning.effort is effort
    [warning] = found.warnings
    assert str(budget) in warning


def test_an_effort_wins_over_a_budget_and_none_is_sent_to_who_takes_none() -> None:
    reasoning = Reasoning(effort=Effort.LOW, budget_tokens=9)
    batch = attrs.evolve(ASK, reasoning=reasoning)

    assert fitted(batch, STRICT).batch.reasoning == reasoning
    assert fitted(batch, ChatTraits(effort=False)).batch.reasoning is None
    dynamic = attrs.evolve(ASK, reasoning=Reasoning(budget_tokens=-1))
    assert fitted(dynamic, STRICT).warnings == ()


def test_the_failure_of_a_tool_is_told_by_its_text_and_that_is_said() -> None:
    result = ToolResultPart(call_id="c", content=(TextPart("no"),), is_error=True)
    batch = attrs.evolve(ASK, messages=(Message(Role.TOOL, (result,)),))

    assert fitted(batch, STRICT).warnings == (
        "that a tool failed is told by its text alone",
    )


PICTURE = ImagePart(source=Inline("image/png", "iVBORw0KGgo="))
PAGE = FilePart(source=Inline("application/pdf", "JVBERi0="))


def result(name: str, *content: Any) -> Message:
    return Message(Role.TOOL, (ToolResultPart(call_id=name, content=content),))


def test_what_tools_show_is_shown_by_the_user_behind_all_results_of_the_turn() -> None:
    asks = Message(Role.USER, "look")
    after = Message(Role.ASSISTANT, "I see.")
    batch = attrs.evolve(
        ASK,
        messages=(
            asks,
            result("a", TextPart("ok"), PICTURE),
            result("b", TextPart("text")),
            result("c", PAGE),
            after,
            result("d", PICTURE),
        ),
    )
    for traits in (STRICT, ChatTraits()):
        found = fitted(batch, traits)
        assert found.batch.messages == (
            asks,
            result("a", TextPart("ok")),
            result("b", TextPart("text")),
            result("c", TextPart("(shown below)")),
            Message(
                Role.USER,
                (
                    TextPart("What the tool call a returned:"),
                    PICTURE,
                    TextPart("What the tool call c returned:"),
                    PAGE,
                ),
            ),
            after,
            result("d", TextPart("(shown below)")),
            Message(Role.USER, (TextPart("What the tool call d returned:"), PICTURE)),
        )
        assert found.warnings == (
            "what a tool showed was sent in a message behind its result",
        )
