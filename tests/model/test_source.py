"""A client's bytes go on under another model's name, or not at all."""

from __future__ import annotations

import pytest

from atomr_infer.model.dialect import Dialect
from atomr_infer.model.source import Source


@pytest.mark.parametrize(
    ("body", "renamed"),
    [
        (b'{"model":"a"}', b'{"model":"up"}'),
        (b'{ "model" :\n"a" , "n":1}', b'{ "model" :\n"up" , "n":1}'),
        (b'{"x":{"model":"a"},"model":"a"}', b'{"x":{"model":"a"},"model":"up"}'),
        (
            b'{"x":"\\"model\\":\\"a\\"","model":"a"}',
            b'{"x":"\\"model\\":\\"a\\"","model":"up"}',
        ),
        (b'{"models":["b"],"model":"a"}', b'{"models":["b"],"model":"up"}'),
    ],
)
def test_only_the_name_is_replaced(body: bytes, renamed: bytes) -> None:
    assert Source(Dialect.OPENAI_CHAT, body, "a").renamed("up") == renamed


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"b","model":"a"}',
        b'{"model":"a","model":"a"}',
        b'{"model":null,"model":"a"}',
        b'{"\\u006dodel":"b","model":"a"}',
        b'{"model":"a","Model":"b"}',
        b'{"MODEL":"b","model":"a"}',
        b'{"model":"a","\\u004dodel":"b"}',
        b'{"model":"\\u0061"}',
    ],
)
def test_bytes_that_name_a_model_twice_are_not_passed_on(body: bytes) -> None:
    assert Source(Dialect.OPENAI_CHAT, body, "a").renamed("up") is None
