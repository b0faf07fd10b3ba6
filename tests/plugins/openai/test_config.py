from __future__ import annotations

from typing import Any

import pytest

from atomr_infer.errors import ConfigError, ModelNotFoundError
from atomr_infer.model.capabilities import ALL_SAMPLING
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import EnvSecret
from atomr_infer_openai.config import OpenAIOptions, parse_options
from atomr_infer_openai.models import capabilities_of, max_tokens_member, traits_of
from atomr_infer_openai.plugin import PLUGIN
from atomr_infer_openai.requests import path_of


def _deployment(credential: EnvSecret | None = None, **options: Any) -> Deployment:
    return Deployment(
        name="up", runtime="openai", credential=credential, options=options
    )


def test_options_are_read() -> None:
    wanted = _deployment(
        endpoint="http://h/v1",
        organization="o",
        project="p",
        headers={"X-Team": "blue"},
    )
    assert parse_options(wanted) == OpenAIOptions(
        endpoint="http://h/v1",
        organization="o",
        project="p",
        headers={"x-team": "blue"},
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpont": "x"}, "option 'endpont' is not known; did you mean 'endpoint'?"),
        ({"zzz": 1}, "option 'zzz' is not known; allowed are endpoint, organization"),
        ({"endpoint": "h/v1"}, "'h/v1' does not start with http"),
        ({"endpoint": ""}, "option 'endpoint' must be a text that is not empty"),
        ({"endpoint": 7}, "option 'endpoint' must be a text that is not empty, not 7"),
        ({"organization": "a\nb"}, "option 'organization'"),
        ({"headers": "x"}, "option 'headers' must be a table"),
        ({"headers": {"a": 1}}, "option 'headers.a' must be a text"),
        ({"headers": {"a b": "c"}}, "'a b' is not the name of an HTTP header"),
        ({"headers": {"a": "c\n"}}, "option 'headers.a' the value of the header"),
        ({"headers": {"A": "1", "a": "2"}}, "option 'headers.a' is given twice"),
        (
            {"headers": {"Authorization": "Bearer x"}},
            "option 'headers.Authorization' cannot be set; use the deployment's",
        ),
        ({"headers": {"Content-Length": "1"}}, "cannot be set; the client sets it"),
        ({"headers": {"OpenAI-Project": "1"}}, "; use the option project"),
    ],
)
def test_wrong_option_is_refused_with_its_name(options: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PLUGIN.validate(_deployment(EnvSecret("K"), **options))
    assert message in str(caught.value)
    assert "deployment 'up'" in str(caught.value)


def test_openai_itself_needs_a_credential_and_others_do_not() -> None:
    with pytest.raises(ConfigError, match="needs a credential"):
        PLUGIN.validate(_deployment())
    with pytest.raises(ConfigError, match="needs a credential"):
        PLUGIN.validate(_deployment(endpoint="https://api.openai.com/v1/"))
    PLUGIN.validate(_deployment(EnvSecret("K")))
    PLUGIN.validate(_deployment(endpoint="http://127.0.0.1:8000/v1"))


NEWER, OLDER = "max_completion_tokens", "max_tokens"


@pytest.mark.parametrize(
    ("endpoint", "member"),
    [
        ("https://api.openai.com/v1", NEWER),
        ("https://eu.api.openai.com/v1", NEWER),
        ("https://us.openai.azure.com/openai/v1", NEWER),
        ("https://notopenai.com/v1", OLDER),
        ("http://127.0.0.1:8000/v1", OLDER),
    ],
)
def test_limit_is_spelled_for_the_endpoint(endpoint: str, member: str) -> None:
    assert max_tokens_member("gpt-4o", OpenAIOptions(endpoint=endpoint)) == member


@pytest.mark.parametrize(
    ("model", "member"),
    [
        ("gpt-5", NEWER),
        ("gpt-5.1-mini", NEWER),
        ("gpt-5-chat-latest", NEWER),
        ("o1", NEWER),
        ("o3-mini", NEWER),
        ("openai/o4-mini:high", NEWER),
        ("azure/eu/gpt-5", NEWER),
        ("gpt-4o", OLDER),
        ("gpt-oss-20b", OLDER),
        ("gpt-50", OLDER),
        ("o1open", OLDER),
        ("solo1", OLDER),
        ("gpt-5/finetune", OLDER),
    ],
)
def test_limit_is_spelled_for_a_model_that_has_openais_name(
    model: str, member: str
) -> None:
    elsewhere = OpenAIOptions(endpoint="http://proxy/v1")
    assert max_tokens_member(model, elsewhere) == member


@pytest.mark.parametrize(("said", "member"), [(True, NEWER), (False, OLDER)])
def test_limit_is_spelled_as_the_option_says(said: bool, member: str) -> None:
    options = parse_options(_deployment(endpoint="http://h/v1", openai_models=said))
    assert max_tokens_member("gpt-5", options) == member
    assert max_tokens_member("house-model", options) == member


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("gpt-4o-mini", 16_384),
        ("gpt-4.1-nano", 32_768),
        ("gpt-5.1", 128_000),
        ("gpt-5-chat-latest", 16_384),
        ("o3-pro", 100_000),
        ("gpt-9", None),
    ],
)
def test_the_longest_answer_is_known_of_openais_models(
    model: str, most: int | None
) -> None:
    here = OpenAIOptions(endpoint="https://api.openai.com/v1")
    assert capabilities_of(model, here).max_output_tokens == most
    assert traits_of(model, here).max_output_tokens == most
    elsewhere = OpenAIOptions(endpoint="http://h/v1")
    assert capabilities_of("gpt-4o", elsewhere).max_output_tokens is None


STEERING = {"temperature", "top_p", "presence_penalty", "frequency_penalty"}


@pytest.mark.parametrize(
    ("model", "said", "missing"),
    [
        ("gpt-5", None, {"top_k", *STEERING}),
        ("openai/gpt-5-chat", None, {"top_k"}),
        ("gpt-5", False, set()),
        ("house-model", None, set()),
        ("house-model", True, {"top_k"}),
    ],
)
def test_openais_models_take_no_top_k_wherever_they_are(
    model: str, said: bool | None, missing: set[str]
) -> None:
    options = OpenAIOptions(endpoint="http://proxy/v1", openai_models=said)
    assert ALL_SAMPLING - capabilities_of(model, options).sampling == missing
    assert ALL_SAMPLING - traits_of(model, options).sampling == missing


def test_key_in_the_environment_is_a_deployment() -> None:
    environ = {"OPENAI_API_KEY": "sk-1"}
    assert PLUGIN.environment_deployments(environ) == (
        Deployment(
            name="openai",
            runtime="openai",
            serves=(
                "gpt-*",
                "chatgpt-*",
                "o1*",
                "o3*",
                "o4*",
                "text-embedding-*",
                "openai/*",
            ),
            credential=EnvSecret("OPENAI_API_KEY"),
        ),
    )
    environ |= {
        "OPENAI_BASE_URL": "http://h/v1",
        "OPENAI_ORG_ID": "o",
        "OPENAI_PROJECT_ID": "",
    }
    (found,) = PLUGIN.environment_deployments(environ)
    assert found.options == {"endpoint": "http://h/v1", "organization": "o"}


@pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": " "}])
def test_environment_without_a_key_has_no_deployment(environ: dict[str, str]) -> None:
    assert PLUGIN.environment_deployments(environ) == ()


@pytest.mark.parametrize("model", [".", ".."])
def test_a_model_is_no_step_in_azures_paths(model: str) -> None:
    options = OpenAIOptions(azure_api_version="2024-10-21")
    with pytest.raises(ModelNotFoundError):
        path_of("/chat/completions", model, options)
