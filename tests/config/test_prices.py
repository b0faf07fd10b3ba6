"""A deployment's price in TOML, and every mistake with its line."""

from __future__ import annotations

import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.prices import Price, Rate, Rates, Tier

HEAD = '[[deployment]]\nname = "a"\nruntime = "mock"\n[deployment.price]\n'


def test_a_price_is_dollars_per_million_tokens() -> None:
    text = (
        "input = 0.15\noutput = 2\ncache_read = 0.000001\nrequest = 10_000\n"
        "tiers = [\n  { above_prompt_tokens = 200_000, input = 0.3 },\n"
        "  { above_prompt_tokens = 100_000, output = 3 },\n]\n"
    )
    (deployment,) = parse_config(HEAD + text, "a.toml").deployments
    assert deployment.price == Price(
        rates=Rates(input=Rate(150_000), output=Rate(2_000_000), cache_read=Rate(1)),
        request=Rate(10_000_000_000),
        tiers=(
            Tier(above_prompt_tokens=100_000, rates=Rates(output=3)),
            Tier(above_prompt_tokens=200_000, rates=Rates(input="0.30")),
        ),
    )


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("output = 1", 4, "input is missing; write USD per million tokens"),
        ("input = 1", 4, "output is missing; write USD per million tokens"),
        ("inptu = 1", 5, "unknown key 'inptu'; did you mean 'input'?"),
        ("input = -1\noutput = 1", 5,
         "input: -1 is no price; write USD per million tokens"),
        ("input = 1\noutput = nan", 6,
         "output: nan is no price; write USD per million tokens"),
        ("input = 1\noutput = 1e99", 6,
         "output: 1e+99 is no price; write USD per million tokens"),
        ("input = true\noutput = 1", 5, "input: True is not a number"),
        ("input = 'free'\noutput = 1", 5, "input: 'free' is not a number"),
        ("input = []\noutput = 1", 5, "input: [] is not a number"),
        ("input = 0.0000001\noutput = 1", 5,
         "input: 1e-07 has more than six decimals"),
        ("input = 1\noutput = 1\ntiers = 3", 7, "tiers is a number, not an array"),
        ("input = 1\noutput = 1\ntiers = [3]", 7, "tiers holds a number, not tables"),
        ("input = 1\noutput = 1\ntiers = [{ input = 1 }]", 7,
         "tiers[0]: above_prompt_tokens is missing"),
        ("input = 1\noutput = 1\ntiers = [{ above_prompt_tokens = -1 }]", 7,
         "tiers[0]: above_prompt_tokens: -1 must be at least 0"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_sentence_with_its_line(
    text: str, line: int, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"{HEAD}{text}\n", "a.toml")
    assert str(caught.value) == f"a.toml:{line}: deployment 'a': price: {said}"
