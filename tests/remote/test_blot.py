"""A key does not leave in an error, nor in what caused it, however long the chain."""

from __future__ import annotations

import traceback

import pytest

from atomr_infer.errors import UpstreamError
from atomr_infer.model.secret import Secret
from atomr_infer.remote.blot import _causes, without_secret

KEY = Secret("sk-s3cret-0123456789")


def chain(length: int, last: Exception) -> Exception:
    """Return an error with so many causes, as ``raise ... from`` makes them."""
    error = last
    for number in range(length):
        outer = ValueError(f"step {number}")
        outer.__cause__ = outer.__context__ = error
        error = outer
    return error


def test_message_code_and_param_are_blotted() -> None:
    with pytest.raises(UpstreamError) as caught, without_secret(KEY):
        text = KEY.reveal()
        raise UpstreamError(f"no {text}", code=text, param=text[:10])
    error = caught.value
    assert (error.message, error.code, error.param) == ("no ***", "***", "***")
    assert str(error) == "no ***"


@pytest.mark.parametrize(("text", "kept"), [(KEY.reveal(), False), ("fine", True)])
def test_a_cause_that_shows_the_key_is_cut_off(text: str, *, kept: bool) -> None:
    with pytest.raises(UpstreamError) as caught, without_secret(KEY):
        raise UpstreamError("down") from chain(5, OSError(f"refused {text}"))
    shown = "".join(traceback.format_exception(caught.value))
    assert (f"refused {text}" in shown) == kept


def test_a_long_chain_is_looked_at_once() -> None:
    assert len(list(_causes(chain(50, OSError("x"))))) == 50


def test_other_errors_and_no_key_are_left_alone() -> None:
    with pytest.raises(KeyError, match=KEY.reveal()), without_secret(KEY):
        raise KeyError(KEY.reveal())
    with pytest.raises(UpstreamError, match="sk-s3cret"), without_secret(None):
        raise UpstreamError(KEY.reveal())
