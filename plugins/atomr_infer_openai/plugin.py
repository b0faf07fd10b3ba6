"""The openai runtime: OpenAI and every server that speaks its chat dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.model.secret import EnvSecret
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.runtimes.by_model import Fit, Machine, named_as
from atomr_infer.runtimes.contract import Host, ModelRunner, RunnerContext
from atomr_infer_openai.config import check_deployment, parse_options
from atomr_infer_openai.runner import open_openai_runner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

_SERVES = (
    "gpt-*",
    "chatgpt-*",
    "o1*",
    "o3*",
    "o4*",
    "text-embedding-*",
    "openai/*",
)

# The names that OpenAI's own libraries read, and the option that each one is.
_OPTION_BY_VARIABLE = {
    "OPENAI_BASE_URL": "endpoint",
    "OPENAI_ORG_ID": "organization",
    "OPENAI_PROJECT_ID": "project",
}


class OpenAIPlugin:
    """Opens clients of OpenAI-like servers; needs no package beyond the base."""

    name = "openai"
    summary = "OpenAI and OpenAI-compatible servers (vLLM, Ollama, LM Studio, ...)"
    host = Host.IN_PROCESS

    def missing(self) -> tuple[str, ...]:
        """Nothing: the client is part of the base install."""
        return ()

    def suits(self, model: str, machine: Machine) -> Fit | None:
        """Tell OpenAI's models by their names."""
        return named_as(model, _SERVES, "OpenAI's models are called so")

    def validate(self, deployment: Deployment) -> None:
        """Refuse unknown or wrong options, and OpenAI itself without a key.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        check_deployment(deployment)

    def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AbstractAsyncContextManager[ModelRunner]:
        """Open a client; it connects when it is first used.

        Raises:
            UpstreamAuthError: on entry; OpenAI itself without a key.
        """
        return open_openai_runner(
            deployment, context.credentials or fixed(context.credential)
        )

    def endpoint(self, deployment: Deployment) -> str | None:
        """Return the base URL: whoever shares it shares its health."""
        return parse_options(deployment).endpoint

    def environment_deployments(
        self, environ: Mapping[str, str]
    ) -> tuple[Deployment, ...]:
        """Return OpenAI's own models when ``OPENAI_API_KEY`` is set."""
        if not environ.get("OPENAI_API_KEY", "").strip():
            return ()
        options: dict[str, OptionValue] = {
            option: environ[variable]
            for variable, option in _OPTION_BY_VARIABLE.items()
            if environ.get(variable)
        }
        return (
            Deployment(
                name="openai",
                runtime="openai",
                serves=_SERVES,
                credential=EnvSecret("OPENAI_API_KEY"),
                options=options,
            ),
        )

    def demo_deployment(self) -> Deployment | None:
        """None: there is no model on this machine."""
        return None


PLUGIN = OpenAIPlugin()
