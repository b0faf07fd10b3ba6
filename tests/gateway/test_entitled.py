"""What a request may do by the key that it showed: its priority, who asks."""

from __future__ import annotations

import pytest

from atomr_infer.errors import (
    InvalidRequestError,
    ModelNotAllowedError,
    ModelNotFoundError,
)
from atomr_infer.gateway.access.entitled import PRIORITY, discreet, entitled
from atomr_infer.model.asker import ANYBODY, Asker, Visitor
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.virtual_key import VirtualKey

ID = "key_0123456789abcdef"
BATCH = ExecuteBatch(request_id="r", model="m", messages=())


def visitor(**terms: object) -> Visitor:
    key = VirtualKey(id=ID, name="ci", **terms)  # type: ignore[arg-type] # the caller's
    return Visitor(b"virtual", key, Asker(ID, key.team))


@pytest.mark.parametrize(
    ("own", "wish", "priority"),
    [
        (None, None, 0),
        (None, "-3", -3),
        (None, "7", 0),
        (None, "-1000", -100),
        (5, None, 5),
        (5, "2", 2),
        (5, " -2 ", -2),
        (5, "9", 5),
        (-5, "0", -5),
    ],
)
def test_a_client_may_say_less_than_its_keys_priority_and_never_more(
    own: int | None, wish: str | None, priority: int
) -> None:
    who = ANYBODY if own is None else visitor(priority=own)
    headers = {} if wish is None else {PRIORITY: wish}
    assert entitled(BATCH, who, headers).priority == priority


@pytest.mark.parametrize("wish", ["", "high", "1.5", "9" * 5000])
def test_a_priority_that_is_no_number_is_refused(wish: str) -> None:
    with pytest.raises(InvalidRequestError, match="is no whole number") as caught:
        entitled(BATCH, visitor(), {PRIORITY: wish})
    assert caught.value.param == PRIORITY
    assert len(caught.value.message) < 100


def test_a_request_says_who_asks() -> None:
    asked = entitled(BATCH, visitor(team="web"), {})
    assert asked.asker == Asker(ID, "web")
    embedding = EmbedRequest(request_id="r", model="m", inputs=("x",))
    assert entitled(embedding, visitor(), {}).asker == Asker(ID)


def test_a_request_of_nobody_is_left_as_it_is() -> None:
    assert entitled(BATCH, Visitor(b"digest of a configured key"), {}) is BATCH


def test_models_are_asked_for_by_their_public_names() -> None:
    allowed = visitor(models=("gpt-*", "nowhere"))
    gpt = ExecuteBatch(request_id="r", model="gpt-6", messages=())
    assert entitled(gpt, allowed, {}).model == "gpt-6"
    with pytest.raises(ModelNotAllowedError, match="may not use the model 'm'; it may"):
        entitled(BATCH, allowed, {})


def test_who_may_use_some_models_hears_nothing_of_others() -> None:
    named = ModelNotFoundError("the model 'x' does not exist; served are 'secret'")
    heard = discreet(named, visitor(models=("gpt-*",)))
    assert (heard.message, heard.param) == ("the model does not exist", "model")
    other = InvalidRequestError("no")
    for error, who in (
        (named, visitor()),
        (named, ANYBODY),
        (other, visitor(models=("gpt-*",))),
    ):
        assert discreet(error, who) is error


def test_what_says_who_asks_already_is_left_as_it_is() -> None:
    who = visitor(priority=3)
    asked = entitled(BATCH, who, {})
    assert entitled(asked, who, {}) is asked
    assert entitled(asked, who, {PRIORITY: "1"}).priority == 1
