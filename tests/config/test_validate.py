"""Runtimes are asked about their deployments, and their refusals get a line."""

from __future__ import annotations

import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.config.validate import validate_deployments
from atomr_infer.errors import ConfigError, PluginError
from atomr_infer.model.deployment import Deployment
from atomr_infer.testing.mock import PLUGIN

GOOD = '[[deployment]]\nname = "good"\nruntime = "mock"\n\n'


def refusal(text: str) -> ConfigError:
    config = parse_config(text, "atomr.toml")
    with pytest.raises(ConfigError) as raised:
        validate_deployments(config.deployments, origin=config.origin)
    return raised.value


def test_each_runtime_is_loaded_once_and_returned_by_name() -> None:
    deployments = [Deployment(name=name, runtime="mock") for name in ("a", "b")]

    assert validate_deployments(deployments) == {"mock": PLUGIN}


def test_no_deployment_needs_no_runtime() -> None:
    assert validate_deployments([]) == {}


def test_a_refused_option_gets_its_line() -> None:
    error = refusal(
        f'{GOOD}[[deployment]]\nname = "bad"\nruntime = "mock"\n'
        '[deployment.options]\nreply = "x"\ntokens = -1\n'
    )

    assert str(error) == (
        "atomr.toml:10: deployment 'bad': option tokens: -1 must be at least 0"
    )


def test_an_unknown_option_gets_its_line_though_another_is_suggested() -> None:
    error = refusal(
        f'{GOOD}[[deployment]]\nname = "bad"\nruntime = "mock"\n'
        'options.reply = "x"\noptions.repyl = "y"\n'
    )

    assert str(error) == (
        "atomr.toml:9: deployment 'bad': the mock runtime has no option 'repyl'; "
        "did you mean 'reply'?"
    )


@pytest.mark.parametrize("runtime", ["openai", "anthropic", "gemini", "litellm"])
def test_a_refused_option_of_a_remote_runtime_names_its_deployment_once(
    runtime: str,
) -> None:
    error = refusal(
        f'[[deployment]]\nname = "bad"\nruntime = "{runtime}"\n'
        'options = { endpoint = "h" }\n'
    )

    assert str(error) == (
        f"atomr.toml:4: deployment 'bad', runtime '{runtime}': "
        "option 'endpoint' 'h' does not start with http:// or https://"
    )


def test_an_unknown_runtime_gets_the_line_of_its_key() -> None:
    error = refusal(f'{GOOD}[[deployment]]\nname = "bad"\n\nruntime = "mokc"\n')

    assert isinstance(error, PluginError)
    assert str(error).startswith(
        "atomr.toml:8: deployment 'bad': no runtime is called 'mokc'; "
        "did you mean 'mock'? installed: "
    )


def test_a_deployment_from_a_program_is_named_without_a_line() -> None:
    bad = Deployment(name="bad", runtime="mock", options={"delay_s": -1})

    with pytest.raises(ConfigError) as raised:
        validate_deployments([bad])

    assert str(raised.value) == (
        "deployment 'bad': option delay_s: -1 is not a number of seconds"
    )


def test_who_leaves_the_runtime_to_the_model_has_none_yet() -> None:
    auto = Deployment(name="a", runtime="auto", model="gpt-4o")

    assert validate_deployments([auto, Deployment(name="b", runtime="mock")]) == {
        "mock": PLUGIN
    }


# --- the model that a fallback is asked for ----------------------------------

GPT = (
    '[[deployment]]\nname = "gpt"\nruntime = "openai"\nserves = ["gpt-*"]\n'
    'credential = { env = "A" }\n'
)
CLAUDE = (
    '[[deployment]]\nname = "claude"\nruntime = "anthropic"\n'
    'serves = ["claude-*"]\ncredential = { env = "B" }\n'
)


def test_a_fallback_to_a_provider_that_does_not_know_the_model_is_refused() -> None:
    error = refusal(f'{GPT}fallbacks = [\n  "claude"\n]\n{CLAUDE}')

    assert str(error) == (
        "atomr.toml:7: deployment 'gpt': fallbacks: 'claude' would be asked for the "
        "name that the client used, and runtime 'anthropic' serves none of gpt-*; "
        'name what it is asked for instead: { to = "claude", model = "..." }'
    )


@pytest.mark.parametrize(
    "text",
    [
        f'{GPT}fallbacks = [{{ to = "claude", model = "claude-x" }}]\n{CLAUDE}',
        f'{GPT}fallbacks = ["claude"]\n{CLAUDE}model = "claude-x"\n',
        f'{GPT}fallbacks = ["claude"]\n{CLAUDE.replace("claude-*", "*")}',
        f'{GPT}fallbacks = ["claude"]\n{CLAUDE.replace("claude-*", "gpt-4*")}',
        f'{GPT}fallbacks = ["claude"]\n{CLAUDE.replace("anthropic", "openai")}',
        f'{GPT}fallbacks = ["good"]\n{GOOD}',
        GPT.replace("gpt-*", "openai/*") + f'fallbacks = ["claude"]\n{CLAUDE}',
    ],
)
def test_a_fallback_that_may_know_the_model_is_taken(text: str) -> None:
    config = parse_config(text, "atomr.toml")
    validate_deployments(config.deployments, origin=config.origin)
