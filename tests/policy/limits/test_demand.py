"""What a request may use at most is never less than what it is counted for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.model.batch import ExecuteBatch, Sampling
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.prices import Price, Rates
from atomr_infer.model.source import Source
from atomr_infer.policy.limits.demand import demand_at_a_glance, demand_of
from atomr_infer.wire.ingress import Call
from atomr_infer.wire.openai.chat_request import parse_chat_request

PRICE = Price(
    rates=Rates(input=1.0, output=2.0, cache_write_5m=1.25, cache_write_1h=4.0)
)

words = st.text(max_size=40)
roles = st.sampled_from(["system", "user", "assistant"])
messages = st.lists(
    st.fixed_dictionaries({"role": roles, "content": words}), min_size=1, max_size=6
)
tools = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": st.just("f"), "description": words}
            ),
        }
    ),
    max_size=3,
)


def glanced(body: dict[str, Any]) -> ExecuteBatch:
    data = msgspec.json.encode(body)
    source = Source(Dialect.OPENAI_CHAT, data, "m", sole=True)
    sampling = Sampling(max_tokens=body.get("max_tokens"))
    return ExecuteBatch(
        request_id="r", model="m", messages=(), source=source, sampling=sampling
    )


@given(messages=messages, tools=tools, tokens=st.none() | st.integers(1, 1000))
def test_the_bytes_of_a_request_bound_what_it_is_counted_for(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]], tokens: int | None
) -> None:
    body: dict[str, Any] = {"model": "m", "messages": messages}
    if tools:
        body["tools"] = tools
    if tokens is not None:
        body["max_tokens"] = tokens
    batch = glanced(body)
    assert batch.source is not None
    call = Call(request_id="r", body=batch.source.body, headers={})
    whole = parse_chat_request(call).batch
    found = demand_at_a_glance(batch, "d", price=PRICE, max_output_tokens=77)
    exact = demand_of(whole, "d", price=PRICE, max_output_tokens=77)
    assert found is not None
    assert found.input_tokens >= exact.input_tokens
    assert found.output_tokens == exact.output_tokens
    assert found.cost_microusd is not None
    assert exact.cost_microusd is not None
    assert found.cost_microusd >= exact.cost_microusd


def test_what_is_written_to_a_cache_costs_what_the_dearest_cache_does() -> None:
    text = {"type": "text", "text": "x" * 3000}
    cached = {**text, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    costs = []
    for part in (text, cached):
        batch = glanced({"messages": [{"role": "user", "content": [part]}]})
        found = demand_at_a_glance(batch, "d", price=PRICE, max_output_tokens=0)
        assert found is not None
        costs.append(found.cost_microusd)
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[1] >= 4 * costs[0]


@pytest.mark.parametrize("part", ["image_url", "input_audio", "file", "document"])
def test_of_pictures_and_files_the_bytes_say_nothing(part: str) -> None:
    batch = glanced({"messages": [{"role": "user", "content": [{"type": part}]}]})
    assert demand_at_a_glance(batch, "d", price=None, max_output_tokens=None) is None
    read = ExecuteBatch(request_id="r", model="m", messages=(), sampling=Sampling())
    assert demand_at_a_glance(read, "d", price=None, max_output_tokens=None) is None
