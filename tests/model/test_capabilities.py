"""A request that cannot be served is refused before it starts."""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.errors import UnsupportedFeatureError
from atomr_infer.model.batch import (
    ExecuteBatch,
    Message,
    RawPart,
    Role,
    Sampling,
    TextPart,
)
from atomr_infer.model.capabilities import (
    ALL_SAMPLING,
    Capabilities,
    Feature,
    check_request,
)
from atomr_infer.model.dialect import Dialect

ASK = ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, "hi"),))
IMAGE = RawPart("image_url", b'{"type": "image_url"}')
WITH_IMAGE = attrs.evolve(
    ASK,
    messages=(
        Message(Role.SYSTEM, "look"),
        Message(Role.USER, (TextPart("what is it?"), IMAGE)),
    ),
)
PLAIN = Capabilities()
ALL = Capabilities(
    features=frozenset(Feature), sampling=ALL_SAMPLING, extra_of=frozenset({Dialect.OPENAI_CHAT})
)


def with_extra(name: str, value: bytes) -> ExecuteBatch:
    return attrs.evolve(ASK, extra={name: value})


@pytest.mark.parametrize(
    ("batch", "param"),
    [
        (with_extra("tools", b'[{"type": "function"}]'), "tools"),
        (with_extra("functions", b"[]"), "functions"),
        (with_extra("tool_choice", b'"required"'), "tool_choice"),
        (with_extra("response_format", b'{"type": "json_object"}'), "response_format"),
        (with_extra("logprobs", b"true"), "logprobs"),
        (with_extra("top_logprobs", b"3"), "top_logprobs"),
        (WITH_IMAGE, "messages[1].content"),
        (attrs.evolve(ASK, sampling=Sampling(n=2)), "n"),
    ],
)
def test_what_a_plain_model_lacks_is_refused_and_a_full_one_serves(
    batch: ExecuteBatch, param: str
) -> None:
    with pytest.raises(UnsupportedFeatureError) as raised:
        check_request(batch, PLAIN)

    assert raised.value.param == param
    assert check_request(batch, ALL) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", b"[]"),
        ("tool_choice", b'"auto"'),
        ("response_format", b'{"type":"text"}'),
        ("logprobs", b"false"),
        ("top_logprobs", b"null"),
    ],
)
def test_asking_for_the_default_asks_for_nothing(name: str, value: bytes) -> None:
    assert check_request(with_extra(name, value), PLAIN) == ()


def test_what_will_have_no_effect_is_named() -> None:
    batch = attrs.evolve(
        ASK,
        sampling=Sampling(temperature=0.5, seed=1, max_tokens=5),
        extra={"top_k": b"4", "user": b'"u"', "tools": b"[]"},
    )

    # "user" asks for nothing that could be missed.
    assert check_request(batch, PLAIN) == ("seed", "temperature", "top_k")
    assert check_request(batch, ALL) == ()
