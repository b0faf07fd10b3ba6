"""What a pipeline asks for itself: for whom, how long, and in which words."""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.model.asker import Asker
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.pipeline.asking.questions import filled, question

BATCH = ExecuteBatch(
    request_id="r",
    model="auto",
    messages=(Message(Role.USER, "sing"), Message(Role.ASSISTANT, "la")),
    sampling=Sampling(temperature=1.5, max_tokens=900, seed=3),
    timeout_s=20.0,
    asker=Asker(key="k"),
    client_headers={"x-team": "blue"},
)


def test_a_question_is_asked_for_the_client_and_holds_nothing_it_said() -> None:
    asked = question(BATCH, "judge", "is it good?", max_tokens=4)
    assert (asked.request_id, asked.model) == ("r", "judge")
    assert asked.messages == (Message(Role.USER, "is it good?"),)
    assert asked.sampling == Sampling(temperature=0.0, max_tokens=4)
    assert (asked.priority, asked.asker) == (BATCH.priority, BATCH.asker)
    assert asked.client_headers == BATCH.client_headers


@pytest.mark.parametrize(
    ("of_request", "own", "bound"),
    [
        (20.0, None, 20.0),
        (20.0, 5.0, 5.0),
        (3.0, 5.0, 3.0),
        (None, 5.0, 5.0),
        (None, None, None),
    ],
)
def test_it_takes_no_longer_than_either_bound(
    of_request: float | None, own: float | None, bound: float | None
) -> None:
    batch = attrs.evolve(BATCH, timeout_s=of_request)
    asked = question(batch, "judge", "?", max_tokens=4, timeout_s=own)
    assert asked.timeout_s == bound


@pytest.mark.parametrize(
    ("prompt", "values", "text"),
    [
        ("{a} and {b}, {a}", {"a": "1", "b": "2"}, "1 and 2, 1"),
        ("{a}{b}", {"a": "{b}", "b": "{a}"}, "{b}{a}"),
        ("{other} {{a}}", {"a": "1"}, "{other} {1}"),
        ("{a}", {"a": r"\\1 \\g<0> {0}"}, r"\\1 \\g<0> {0}"),
        ("{ab}", {"a": "1", "ab": "2"}, "2"),
    ],
)
def test_values_are_put_in_once_and_as_they_are(
    prompt: str, values: dict[str, str], text: str
) -> None:
    assert filled(prompt, **values) == text
