"""The litellm runtime: a LiteLLM proxy as an upstream, openai re-targeted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import EnvSecret
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.runtimes.contract import Host, ModelRunner, RunnerContext
from atomr_infer_litellm.config import parse_litellm_options
from atomr_infer_litellm.runner import open_litellm_runner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager


class LiteLLMPlugin:
    """Opens clients of LiteLLM proxies; needs no package beyond the base."""

    name = "litellm"
    summary = "a LiteLLM proxy: tags, metadata and its own cost figures"
    host = Host.IN_PROCESS

    def missing(self) -> tuple[str, ...]:
        """Nothing: the client is part of the base install."""
        return ()

    def validate(self, deployment: Deployment) -> None:
        """Refuse unknown or wrong options, and a missing endpoint.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        parse_litellm_options(deployment)

    def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AbstractAsyncContextManager[ModelRunner]:
        """Open a client; it connects when it is first used."""
        return open_litellm_runner(
            deployment, context.credentials or fixed(context.credential)
        )

    def endpoint(self, deployment: Deployment) -> str | None:
        """Return the proxy's base URL: whoever shares it shares its health."""
        return parse_litellm_options(deployment).openai.endpoint

    def environment_deployments(
        self, environ: Mapping[str, str]
    ) -> tuple[Deployment, ...]:
        """Return a proxy that LiteLLM's own variables name."""
        endpoint = environ.get("LITELLM_PROXY_API_BASE", "").strip()
        if not endpoint:
            return ()
        has_key = environ.get("LITELLM_PROXY_API_KEY", "").strip()
        return (
            Deployment(
                name="litellm",
                runtime="litellm",
                serves=("litellm/*",),
                credential=EnvSecret("LITELLM_PROXY_API_KEY") if has_key else None,
                options={"endpoint": endpoint},
            ),
        )

    def demo_deployment(self) -> Deployment | None:
        """None: there is no model on this machine."""
        return None


PLUGIN = LiteLLMPlugin()
