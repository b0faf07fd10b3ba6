from __future__ import annotations

from typing import Any

import pytest

from atomr_infer.errors import ConfigError
from atomr_infer.model.asks import Effort
from atomr_infer.model.capabilities import Feature, ThinkingStyle
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.secret import EnvSecret, PooledSecret
from atomr_infer.wire.anthropic.traits import ThinkingOff
from atomr_infer_anthropic.config import AnthropicOptions, parse_options
from atomr_infer_anthropic.models import capabilities_of, fitted_traits, traits_of
from atomr_infer_anthropic.plugin import PLUGIN


def _deployment(credential: EnvSecret | None = None, **options: Any) -> Deployment:
    return Deployment(
        name="up", runtime="anthropic", credential=credential, options=options
    )


def test_options_are_read() -> None:
    wanted = _deployment(
        endpoint="http://h/v1/",
        auth="bearer",
        api_version="2023-06-01",
        beta="a,b",
        max_output_tokens=7,
        headers={"X-Team": "blue"},
    )
    assert parse_options(wanted) == AnthropicOptions(
        endpoint="http://h",
        auth="bearer",
        api_version="2023-06-01",
        beta="a,b",
        max_output_tokens=7,
        headers={"x-team": "blue"},
    )
    assert parse_options(_deployment()) == AnthropicOptions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpont": "x"}, "option 'endpont' is not known; did you mean 'endpoint'?"),
        (
            {"zzz": 1},
            "option 'zzz' is not known; allowed are endpoint, auth, api_version",
        ),
        ({"endpoint": "h"}, "'h' does not start with http"),
        ({"endpoint": ""}, "option 'endpoint' must be a text that is not empty"),
        ({"auth": "basic"}, "option 'auth' must be one of x-api-key, bearer"),
        ({"api_version": "1"}, "option 'api_version' must be one of 2023-06-01, 2026-"),
        ({"beta": "a\nb"}, "option 'beta'"),
        ({"max_output_tokens": 0}, "must be a whole number above 0, not 0"),
        ({"max_output_tokens": True}, "must be a whole number above 0, not True"),
        ({"headers": "x"}, "option 'headers' must be a table"),
        ({"headers": {"a": 1}}, "option 'headers.a' must be a text"),
        ({"headers": {"a b": "c"}}, "'a b' is not the name of an HTTP header"),
        ({"headers": {"A": "1", "a": "2"}}, "option 'headers.a' is given twice"),
        ({"headers": {"X-Api-Key": "x"}}, "use the deployment's credential"),
        ({"headers": {"Authorization": "x"}}, "use the deployment's credential"),
        ({"headers": {"anthropic-version": "x"}}, "use the option api_version"),
        ({"headers": {"anthropic-beta": "x"}}, "use the option beta"),
        ({"headers": {"Content-Length": "1"}}, "cannot be set; the client sets it"),
    ],
)
def test_wrong_option_is_refused_with_its_name(options: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PLUGIN.validate(_deployment(EnvSecret("K"), **options))
    assert message in str(caught.value)
    assert "deployment 'up', runtime 'anthropic'" in str(caught.value)


def test_anthropic_itself_needs_a_credential_and_others_do_not() -> None:
    with pytest.raises(ConfigError, match="needs a credential"):
        PLUGIN.validate(_deployment())
    PLUGIN.validate(_deployment(EnvSecret("K")))
    PLUGIN.validate(_deployment(endpoint="http://127.0.0.1:8000"))
    PLUGIN.validate(
        Deployment(
            name="up",
            runtime="anthropic",
            credentials=(PooledSecret(EnvSecret("A")), PooledSecret(EnvSecret("B"))),
        )
    )


def test_deployments_of_one_endpoint_share_it() -> None:
    assert PLUGIN.endpoint(_deployment()) == "https://api.anthropic.com"
    assert PLUGIN.endpoint(_deployment(endpoint="http://h/v1")) == "http://h"


def _found(credential: EnvSecret, **options: Any) -> tuple[Deployment, ...]:
    return (
        Deployment(
            name="anthropic",
            runtime="anthropic",
            serves=("claude-*", "anthropic/*"),
            credential=credential,
            options=options,
        ),
    )


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ()),
        ({"ANTHROPIC_API_KEY": " "}, ()),
        ({"ANTHROPIC_API_KEY": "k"}, _found(EnvSecret("ANTHROPIC_API_KEY"))),
        (
            {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "http://h"},
            _found(EnvSecret("ANTHROPIC_API_KEY"), endpoint="http://h"),
        ),
        (
            {"ANTHROPIC_AUTH_TOKEN": "t"},
            _found(EnvSecret("ANTHROPIC_AUTH_TOKEN"), auth="bearer"),
        ),
    ],
)
def test_environment_alone_is_a_deployment(
    environ: dict[str, str], expected: tuple[Deployment, ...]
) -> None:
    assert PLUGIN.environment_deployments(environ) == expected


# --- what the models take ---------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "thinking", "prefill", "samples", "schema", "most"),
    [
        ("claude-fable-5-2", ThinkingStyle.ADAPTIVE, False, False, True, 128_000),
        ("claude-opus-5-5", ThinkingStyle.ADAPTIVE, False, False, True, 128_000),
        ("claude-haiku-5-5", ThinkingStyle.ADAPTIVE, False, False, True, 128_000),
        ("claude-opus-4-7", ThinkingStyle.ADAPTIVE, False, False, True, 128_000),
        ("claude-opus-4-6", ThinkingStyle.ADAPTIVE, False, True, True, 128_000),
        ("claude-sonnet-4-6", ThinkingStyle.ADAPTIVE, False, True, True, 64_000),
        ("claude-haiku-4-5-20251001", ThinkingStyle.BUDGET, True, True, True, 64_000),
        ("claude-opus-4-1-20250805", ThinkingStyle.BUDGET, True, True, True, 32_000),
        ("claude-opus-4-20250514", ThinkingStyle.BUDGET, True, True, False, 32_000),
        ("claude-sonnet-4-20250514", ThinkingStyle.BUDGET, True, True, False, 64_000),
        ("claude-3-7-sonnet-20250219", ThinkingStyle.BUDGET, True, True, False, 64_000),
        ("claude-3-5-haiku-20241022", ThinkingStyle.NONE, True, True, False, 8_192),
        ("claude-3-haiku-20240307", ThinkingStyle.NONE, True, True, False, 4_096),
        ("claude-someday-9", ThinkingStyle.ADAPTIVE, False, False, True, 128_000),
        ("MiniMax-M3", ThinkingStyle.BUDGET, True, True, False, 8_192),
    ],
)
def test_models_differ_in_what_they_take(
    model: str,
    thinking: ThinkingStyle,
    prefill: bool,
    samples: bool,
    schema: bool,
    most: int,
) -> None:
    traits = traits_of(model)
    assert (traits.thinking, traits.prefill) == (thinking, prefill)
    assert (bool(traits.sampling), traits.json_schema) == (samples, schema)
    assert traits.max_output_tokens == most
    capabilities = capabilities_of(traits)
    assert capabilities.thinking is thinking
    assert (Feature.PREFILL in capabilities.features) is prefill
    assert ("temperature" in capabilities.sampling) is samples
    assert capabilities.max_output_tokens == most
    reasons = thinking is not ThinkingStyle.NONE
    assert (Feature.REASONING in capabilities.features) is reasons
    assert capabilities.passes == {Dialect.ANTHROPIC}


def test_models_differ_in_their_finer_points() -> None:
    assert traits_of("claude-fable-5").off is ThinkingOff.NEVER
    assert traits_of("claude-opus-5").off is ThinkingOff.DISABLED
    assert traits_of("claude-opus-4-8").off is ThinkingOff.OMITTED
    assert Effort.XHIGH not in traits_of("claude-opus-4-6").efforts
    assert traits_of("claude-opus-4-8").system_turns
    assert not traits_of("claude-sonnet-5").system_turns
    assert not traits_of("claude-sonnet-4-5").both_of
    assert traits_of("claude-sonnet-4-20250514").both_of
    assert (
        Feature.FILES in capabilities_of(traits_of("claude-3-5-haiku-latest")).features
    )
    assert (
        Feature.FILES
        not in capabilities_of(traits_of("claude-3-haiku-20240307")).features
    )


def test_a_deployment_can_bound_what_a_model_takes() -> None:
    options = AnthropicOptions(api_version="2026-10-21", max_output_tokens=7)
    capabilities = capabilities_of(fitted_traits("claude-sonnet-4-5", options))
    assert "temperature" not in capabilities.sampling
    assert capabilities.max_output_tokens == 7
    free = fitted_traits("claude-sonnet-4-5", AnthropicOptions())
    assert free == traits_of("claude-sonnet-4-5")
