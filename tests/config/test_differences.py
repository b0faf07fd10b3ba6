"""What differs between two configurations, as people read it; secrets never."""

from __future__ import annotations

from typing import Any

import attrs

from atomr_infer.config.differences import (
    Difference,
    Field,
    Kind,
    changed_fields,
    deployment_differences,
)
from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.model.deployment import Deployment, Serving
from atomr_infer.model.failover import OnCut
from atomr_infer.model.prices import Price, Rates, Tier
from atomr_infer.model.secret import (
    EnvSecret,
    FileSecret,
    HeaderSecret,
    PluginSecret,
    PooledSecret,
    Secret,
)

M = Deployment(name="m", runtime="openai")


def fields_of(**changed: Any) -> tuple[Field, ...]:
    (found,) = deployment_differences([M], [attrs.evolve(M, **changed)])
    assert found.kind is Kind.CHANGED
    return found.fields


def test_what_comes_and_what_goes_is_named_with_its_runtime() -> None:
    n = Deployment(name="n", runtime="mock")
    assert deployment_differences([M], [n]) == (
        Difference(Kind.ADDED, "deployment 'n' (mock)"),
        Difference(Kind.REMOVED, "deployment 'm'"),
    )


def test_what_says_the_same_does_not_differ() -> None:
    assert deployment_differences([M], [Deployment(name="m", runtime="openai")]) == ()


def test_a_field_is_shown_with_both_values_as_they_are_written() -> None:
    assert fields_of(
        serving=Serving(replicas=2), on_cut=OnCut.BUFFER, serves=("m", "é")
    ) == (
        Field("on_cut", "error", "buffer"),
        Field("serves", '["m"]', '["m", "é"]'),
        Field("serving.replicas", "1", "2"),
    )


def test_a_price_is_shown_as_the_file_writes_it() -> None:
    longer = Tier(above_prompt_tokens=9, rates=Rates(input="0.000001"))
    price = Price(rates=Rates(input=1, output=100), request="0.25", tiers=(longer,))

    assert fields_of(price=price) == (
        Field("price.input", "nothing", "1"),
        Field("price.output", "nothing", "100"),
        Field("price.request", "nothing", "0.25"),
        Field(
            "price.tiers",
            "nothing",
            "[{above_prompt_tokens = 9, input = 0.000001}]",
        ),
    )


def test_another_price_is_shown_with_both() -> None:
    before = Price(rates=Rates(input=0.15, output=0.6))
    after = attrs.evolve(before, rates=Rates(input=0.15, output=0.75))
    (found,) = deployment_differences(
        [attrs.evolve(M, price=before)], [attrs.evolve(M, price=after)]
    )

    assert found.line == "~ deployment 'm': price.output: 0.6 -> 0.75"


def test_a_key_is_shown_by_where_it_is_found() -> None:
    for source, shown in (
        (EnvSecret("K"), "env K"),
        (FileSecret("keys/a"), "file keys/a"),
        (HeaderSecret("x-key"), "header x-key"),
        (PluginSecret("oauth2", {"secret": "sk-1"}), "provider oauth2"),
        (Secret("sk-123"), "a key"),
    ):
        assert fields_of(credential=source) == (Field("credential", "nothing", shown),)
    pool = (PooledSecret(EnvSecret("A")), PooledSecret(Secret("sk-1"), weight=3))
    assert fields_of(credentials=pool) == (
        Field(
            "credentials",
            "nothing",
            "[{source = env A, weight = 1}, {source = a key, weight = 3}]",
        ),
    )


def test_another_key_in_the_program_differs_and_is_not_shown() -> None:
    before = attrs.evolve(M, credential=Secret("sk-old"))
    (found,) = deployment_differences(
        [before], [attrs.evolve(M, credential=Secret("sk-new"))]
    )
    assert found.line == "~ deployment 'm': credential: a key -> a key"


def test_what_may_hold_a_key_is_not_shown() -> None:
    for name in ("headers", "api_key", "token", "authorization"):
        (found,) = fields_of(options={name: "sk-1"})
        assert found.after == "(not shown)"
        assert "sk-1" not in str(found)
    (shown,) = fields_of(options={"endpoint": "http://a"})
    assert shown.after == '"http://a"'


def test_fields_of_another_table_are_compared_the_same_way() -> None:
    before, after = GatewayConfig(), GatewayConfig(keepalive_s=1.0, bind="[::1]:1")
    assert changed_fields(before, after, only=["keepalive_s"]) == (
        Field("keepalive_s", "15.0", "1.0"),
    )
    assert changed_fields(before, before) == ()


def test_what_waits_for_a_restart_says_so() -> None:
    later = Difference(
        Kind.CHANGED, "[gateway]", (Field("bind", "a", "b"),), later=True
    )
    assert later.line == "~ [gateway]: bind: a -> b (with a restart)"
