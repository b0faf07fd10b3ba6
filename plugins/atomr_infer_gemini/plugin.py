"""The gemini runtime: Google's models on AI Studio and on Vertex AI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.model.secret import EnvSecret, PluginSecret, SecretSource
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.runtimes.by_model import Fit, Machine, named_as
from atomr_infer.runtimes.contract import Host, ModelRunner, RunnerContext
from atomr_infer_gemini.config import check_deployment, parse_options
from atomr_infer_gemini.runner import open_gemini_runner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

_SERVES = ("gemini-*", "gemini/*", "google/*")

# As Google's own libraries read them: where both are set, the first one wins.
_KEY_VARIABLES = ("GOOGLE_API_KEY", "GEMINI_API_KEY")


# Variables of Google's libraries, and the option that each one is.
_STUDIO_VARIABLES = {"GOOGLE_GEMINI_BASE_URL": "endpoint"}
_VERTEX_VARIABLES = {
    "GOOGLE_CLOUD_PROJECT": "project",
    "GOOGLE_CLOUD_LOCATION": "region",
    "GOOGLE_VERTEX_BASE_URL": "endpoint",
}


class GeminiPlugin:
    """Opens clients of the Gemini API; needs no package beyond the base."""

    name = "gemini"
    summary = "Google's Gemini models (AI Studio and Vertex AI)"
    host = Host.IN_PROCESS

    def missing(self) -> tuple[str, ...]:
        """Nothing: the client is part of the base install."""
        return ()

    def suits(self, model: str, machine: Machine) -> Fit | None:
        """Tell Google's models by their names."""
        return named_as(model, _SERVES, "Google's models are called so")

    def validate(self, deployment: Deployment) -> None:
        """Refuse unknown or wrong options, and Google itself without a key.

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
            UpstreamAuthError: on entry; Google itself without a key.
        """
        return open_gemini_runner(
            deployment, context.credentials or fixed(context.credential)
        )

    def environment_deployments(
        self, environ: Mapping[str, str]
    ) -> tuple[Deployment, ...]:
        """Return AI Studio's models when its key is set, or Vertex's when asked.

        The variables are those that Google's own libraries read.
        """
        if environ.get("GOOGLE_GENAI_USE_VERTEXAI", "").lower() in {"1", "true"}:
            return _vertex(environ)
        for variable in _KEY_VARIABLES:
            if environ.get(variable, "").strip():
                return (_deployment(EnvSecret(variable), environ, _STUDIO_VARIABLES),)
        return ()

    def demo_deployment(self) -> Deployment | None:
        """None: there is no model on this machine."""
        return None


def _vertex(environ: Mapping[str, str]) -> tuple[Deployment, ...]:
    if not environ.get("GOOGLE_CLOUD_PROJECT"):
        return ()
    return (_deployment(PluginSecret("google"), environ, _VERTEX_VARIABLES),)


def _deployment(
    credential: SecretSource,
    environ: Mapping[str, str],
    variables: Mapping[str, str],
) -> Deployment:
    options: dict[str, OptionValue] = {
        option: environ[variable]
        for variable, option in variables.items()
        if environ.get(variable)
    }
    return Deployment(
        name="gemini",
        runtime="gemini",
        serves=_SERVES,
        credential=credential,
        options=options,
    )


PLUGIN = GeminiPlugin()
