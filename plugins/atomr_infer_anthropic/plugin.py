"""The anthropic runtime: Anthropic and servers that speak its Messages API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.model.secret import EnvSecret
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.runtimes.by_model import Fit, Machine, named_as
from atomr_infer.runtimes.contract import Host, ModelRunner, RunnerContext
from atomr_infer_anthropic.config import check_deployment, parse_options
from atomr_infer_anthropic.runner import open_anthropic_runner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

_SERVES = ("claude-*", "anthropic/*")

# The names that Anthropic's own libraries read: the key or a token, first found
# first, and the header that carries it.
_AUTH_BY_VARIABLE = {
    "ANTHROPIC_API_KEY": "x-api-key",
    "ANTHROPIC_AUTH_TOKEN": "bearer",
}


class AnthropicPlugin:
    """Opens clients of the Messages API; needs no package beyond the base."""

    name = "anthropic"
    summary = "Anthropic's Claude, and servers that speak its Messages API"
    host = Host.IN_PROCESS

    def missing(self) -> tuple[str, ...]:
        """Nothing: the client is part of the base install."""
        return ()

    def suits(self, model: str, machine: Machine) -> Fit | None:
        """Tell Anthropic's models by their names."""
        return named_as(model, _SERVES, "Anthropic's models are called so")

    def validate(self, deployment: Deployment) -> None:
        """Refuse unknown or wrong options, and Anthropic itself without a key.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        check_deployment(deployment)

    def endpoint(self, deployment: Deployment) -> str:
        """Return the address that the deployment asks."""
        return parse_options(deployment).endpoint

    def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AbstractAsyncContextManager[ModelRunner]:
        """Open a client; it connects when it is first used.

        Raises:
            UpstreamAuthError: on entry; Anthropic itself without a key.
        """
        return open_anthropic_runner(
            deployment, context.credentials or fixed(context.credential)
        )

    def environment_deployments(
        self, environ: Mapping[str, str]
    ) -> tuple[Deployment, ...]:
        """Return Anthropic's models when its key or token is set."""
        for variable, auth in _AUTH_BY_VARIABLE.items():
            if environ.get(variable, "").strip():
                return (_deployment(variable, auth, environ),)
        return ()

    def demo_deployment(self) -> Deployment | None:
        """None: there is no model on this machine."""
        return None


def _deployment(variable: str, auth: str, environ: Mapping[str, str]) -> Deployment:
    options: dict[str, OptionValue] = {}
    if auth != "x-api-key":
        options["auth"] = auth
    endpoint = environ.get("ANTHROPIC_BASE_URL", "").strip()
    if endpoint:
        options["endpoint"] = endpoint
    return Deployment(
        name="anthropic",
        runtime="anthropic",
        serves=_SERVES,
        credential=EnvSecret(variable),
        options=options,
    )


PLUGIN = AnthropicPlugin()
