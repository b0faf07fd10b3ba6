"""A secret does not get out by accident."""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import TYPE_CHECKING

import pytest

from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret

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
