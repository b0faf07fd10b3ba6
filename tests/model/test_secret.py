"""A secret does not get out by accident."""

from __future__ import annotations

import copy
import pickle
import re
import traceback
from base64 import b64encode, urlsafe_b64encode
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis.strategies import text

from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret, _traces

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = Secret("sk-s3cret")


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{:>20}".format,
        lambda secret: f"{secret!r} {secret!s}",
        lambda secret: "%s" % secret,  # noqa: UP031  (the old way must not leak, too)
        lambda secret: repr(Deployment(name="a", runtime="m", credential=secret)),
        lambda secret: repr([secret, {"key": secret}]),
    ],
)
def test_no_text_form_holds_it(show: Callable[[Secret], str]) -> None:
    shown = show(SECRET)

    assert "s3cret" not in shown
    assert "Secret('***')" in shown


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_cannot_be_copied_away(take: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError, match="cannot be pickled or copied") as raised:
        take(SECRET)

    assert "s3cret" not in "".join(traceback.format_exception(raised.value))


def test_it_is_read_on_request_only() -> None:
    assert SECRET.reveal() == "sk-s3cret"
    assert Secret("sk-s3cret") == SECRET
    assert Secret("other") != SECRET


# --- blotting ---------------------------------------------------------------

KEY = "sk-proj-Ab9_xYz+/=Q0123456789"


@pytest.mark.parametrize(
    ("text", "blotted"),
    [
        (KEY, "***"),
        (f"<{KEY}>", "<***>"),
        (f"{KEY}{KEY}", "******"),
        (f"{KEY[:8]}...{KEY[-8:]}", "***...***"),
        (f"{KEY[:7]}...{KEY[-7:]}", f"{KEY[:7]}...{KEY[-7:]}"),
        (f"x{KEY[3:15]}y", "x***y"),
        (KEY.upper(), "***"),
        ("sk%2Dproj%2DAb9%5FxYz%2B%2F%3DQ0123456789", "sk%2Dproj%2DAb9%5F***"),
        ("sk-proj-Ab9_xYz%2B%2F%3DQ0123456789", "***"),
        (KEY.encode().hex(), "***"),
        ("nothing of it", "nothing of it"),
        ("", ""),
        ("short", "short"),
    ],
)
def test_a_secret_is_blotted_out_with_its_pieces(text: str, blotted: str) -> None:
    assert Secret(KEY).blot(text) == blotted


@pytest.mark.parametrize("before", ["", "B", "Be", "Bearer ", "user:"])
@pytest.mark.parametrize("after", ["", "!", "!!"])
@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
def test_what_base64_makes_of_it_is_blotted_out_wherever_it_starts(
    before: str, after: str, encode: Callable[[bytes], bytes]
) -> None:
    text = encode(f"{before}{KEY}{after}".encode()).decode()
    blotted = Secret(KEY).blot(text)
    # What is left belongs to the neighbours, but for a character on each side.
    kept = blotted.replace("***", "").rstrip("=")
    assert "***" in blotted
    assert len(kept) <= 4 * (len(before) + len(after)) / 3 + 3
    assert all(text[at : at + 8] not in blotted for at in range(12, len(text) - 16))


def test_base64_of_something_else_is_left_alone() -> None:
    text = b64encode(b"a message that has nothing to do with it").decode()
    assert Secret(KEY).blot(text) == text


@given(text(), text(min_size=1), text())
def test_of_any_text_no_piece_is_left(before: str, key: str, after: str) -> None:
    blotted = Secret(key).blot(before + key + after)
    if len(key) >= 8:
        pieces = {key[at : at + 8] for at in range(len(key) - 7)}
        assert not [piece for piece in pieces if piece in blotted]
    if len(key) > 3 and "*" not in key:
        assert key not in blotted


def naive(key: str, text: str) -> str:
    """Blot every character that is in a run of 8 of a form of the key."""
    traces = _traces(key)
    text = text.replace(key, "***")
    low = text.lower()
    inside = [False] * len(text)
    for at in range(len(text) - 7):
        if low[at : at + 8] in traces.pieces:
            inside[at : at + 8] = [True] * 8
    marked = "".join("\0" if mark else c for c, mark in zip(text, inside, strict=True))
    return re.sub("\0+", "***", marked)


# Few letters, so that pieces of the key are common, and near each other.
letters = text("abAB", max_size=60)


@given(text("abAB", min_size=8, max_size=12), letters)
def test_it_finds_what_a_naive_search_finds(key: str, shown: str) -> None:
    assert Secret(key).blot(shown).replace("******", "***") == (
        naive(key, shown).replace("******", "***")
    )


def test_letters_whose_lower_case_is_longer_move_nothing() -> None:
    text = f"\u0130\u0130\u0130 {KEY[:10]} end"
    assert Secret(KEY).blot(text) == "\u0130\u0130\u0130 *** end"


def test_what_is_kept_for_the_search_does_not_show_itself() -> None:
    secret = Secret(KEY)
    secret.blot("anything")
    assert KEY[:8].lower() not in f"{secret._known!r} {secret!r}".lower()
    assert secret == Secret(KEY)
    assert hash(secret) == hash(Secret(KEY))


def test_an_empty_secret_blots_nothing() -> None:
    assert Secret("").blot("anything") == "anything"
