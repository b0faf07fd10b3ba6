"""A deployment's ``[options]`` for the anthropic runtime, checked.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.remote.http.origin import parse_base_url
from atomr_infer.remote.options import HTTP2, Options
from atomr_infer.wire.anthropic.versions import BETA_HEADER, HEADER, NEW, OLD

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

DEFAULT_ENDPOINT = "https://api.anthropic.com"

_RESERVED = {
    "x-api-key": "use the deployment's credential",
    HEADER: "use the option api_version",
    BETA_HEADER: "use the option beta",
}
_AUTH = ("x-api-key", "bearer")


@attrs.frozen(kw_only=True)
class AnthropicOptions:
    """What only the anthropic runtime understands.

    Attributes:
        endpoint: base URL, without its version: ``https://host``.
        auth: the header that carries the key: ``x-api-key``, or ``bearer`` for
            tokens and for servers that want those.
        api_version: the version of every request that is made here; None: the
            newest that takes what the request holds.
        beta: beta features of every request, beside the client's, separated by
            commas.
        max_output_tokens: most that an answer may have, where the table of
            models does not know it or less is wanted.
        http2: ``"off"``; ``"alpn"``: where the server agrees on it; or
            ``"prior-knowledge"``: spoken at once.
        headers: further headers of every request.
    """

    endpoint: str = DEFAULT_ENDPOINT
    auth: str = "x-api-key"
    api_version: str | None = None
    beta: str | None = None
    max_output_tokens: int | None = None
    http2: str = "off"
    headers: Mapping[str, str] = attrs.field(factory=dict, hash=False)

    @property
    def needs_credential(self) -> bool:
        """True for Anthropic itself; a compatible server may take anyone."""
        return parse_base_url(self.endpoint).origin.host == "api.anthropic.com"


def parse_options(deployment: Deployment) -> AnthropicOptions:
    """Return a deployment's options.

    Raises:
        ConfigError: names the option, its value and what is allowed.
    """
    options = Options(
        deployment, [field.name for field in attrs.fields(AnthropicOptions)]
    )
    version = None
    if options.text("api_version") is not None:
        version = options.one_of("api_version", (OLD, NEW), NEW)
    endpoint = options.base_url("endpoint", DEFAULT_ENDPOINT).rstrip("/")
    return AnthropicOptions(
        # Written with the version by who knows OpenAI's habit.
        endpoint=endpoint.removesuffix("/v1"),
        auth=options.one_of("auth", _AUTH, "x-api-key"),
        api_version=version,
        beta=options.header_text("beta", BETA_HEADER),
        max_output_tokens=options.count("max_output_tokens"),
        http2=options.one_of("http2", HTTP2, "off"),
        headers=options.headers("headers", _RESERVED),
    )


def check_deployment(deployment: Deployment) -> None:
    """Refuse a deployment that this runtime could never run.

    Raises:
        ConfigError: an option is wrong, or Anthropic's own endpoint has no key.
    """
    options = parse_options(deployment)
    if options.needs_credential and not has_key(deployment):
        raise ConfigError(
            f"deployment {deployment.name!r}: {options.endpoint} needs a credential;"
            " name the environment variable or the file that holds the API key"
        )


def has_key(deployment: Deployment) -> bool:
    """Return True when the deployment names one key or several."""
    return deployment.credential is not None or bool(deployment.credentials)
