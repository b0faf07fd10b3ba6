"""What a request may cost, from the request alone."""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.model.asks import Tool
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling, TextPart
from atomr_infer.model.parts import AudioPart, CacheHint, ImagePart, Inline, Part
from atomr_infer.model.prices import Price, Rates
from atomr_infer.policy.estimates.cost_estimate import estimate_request
from atomr_infer.policy.estimates.spending import interrupted_usage
from atomr_infer.policy.estimates.token_estimate import estimate_prompt_tokens

PRICE = Price(rates=Rates(input=1, output=10))


def batch(*parts: Part, **sampling: int) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message(Role.USER, parts or (TextPart("x" * 300),)),),
        sampling=Sampling(**sampling),  # type: ignore[arg-type] # whole numbers only
    )


def bounds(
    request: ExecuteBatch, price: Price = PRICE, longest: int | None = None
) -> tuple[int, int | None]:
    """The bounds in micro-dollars per million tokens: tokens times dollars."""
    estimate = estimate_request(request, price, max_output_tokens=longest)
    assert estimate is not None
    high = None if estimate.high is None else estimate.high.pico_usd // 10**6
    return estimate.low.pico_usd // 10**6, high


def test_prompt_and_the_longest_answer_are_counted() -> None:
    # 300 bytes: 100 tokens, and 8 of the message.
    assert bounds(batch(max_tokens=50)) == (27, 108 + 500)


def test_the_model_s_longest_answer_counts_where_the_request_has_no_limit() -> None:
    assert bounds(batch(), longest=20) == (27, 108 + 200)
    assert bounds(batch(max_tokens=5), longest=20) == (27, 108 + 50)


def test_each_answer_counts() -> None:
    assert bounds(batch(max_tokens=50, n=3)) == (27, 108 + 1500)


def test_an_answer_without_a_limit_has_no_upper_bound() -> None:
    assert bounds(batch()) == (27, None)


def test_without_a_price_nothing_is_said() -> None:
    assert estimate_request(batch(), None, max_output_tokens=5) is None


CACHED = TextPart("x" * 300, cache=CacheHint())
CACHED_LONG = TextPart("x" * 300, cache=CacheHint(ttl="1h"))
SOUND = AudioPart(source=Inline("audio/wav", "A" * 120))
PICTURE = ImagePart(source=Inline("image/png", "A" * 120))


@pytest.mark.parametrize(
    ("part", "bucket"),
    [
        (CACHED, "cache_write_5m"),
        (CACHED_LONG, "cache_write_1h"),
        (SOUND, "input_audio"),
    ],
)
def test_what_is_billed_apart_must_have_a_price(part: Part, bucket: str) -> None:
    request = batch(part, max_tokens=0)
    tokens = estimate_prompt_tokens(request)
    assert bounds(request) == (tokens // 4, None)
    priced = attrs.evolve(PRICE.rates, **{bucket: 3})
    assert bounds(request, Price(rates=priced)) == (tokens // 4, tokens * 3)


def test_a_cache_border_behind_a_tool_is_seen() -> None:
    tool = Tool(name="f", cache=CacheHint())
    request = attrs.evolve(batch(max_tokens=0), tools=(tool,))
    assert bounds(request)[1] is None


def test_a_picture_is_billed_as_text_where_it_has_no_price() -> None:
    request = batch(PICTURE, max_tokens=0)
    tokens = estimate_prompt_tokens(request)
    assert bounds(request) == (tokens // 4, tokens)


def test_a_bare_prompt_is_counted_once() -> None:
    chat = batch(max_tokens=0)
    request = attrs.evolve(chat, prompt="x" * 300)
    assert bounds(request) == bounds(chat) == (27, 108)
    assert interrupted_usage(request, 0).input_uncached == 75
