"""A deployment's ``[options]`` for the openai runtime, checked.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.model.dialect import Dialect
from atomr_infer.remote.http.origin import parse_base_url
from atomr_infer.remote.options import HTTP2, Options

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

DEFAULT_ENDPOINT = "https://api.openai.com/v1"

AZURE = ".openai.azure.com"
"""How the host of an Azure OpenAI resource ends."""

BARE_TEXT = ("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002")
"""How the names of OpenAI's models begin that continue bare text."""

_ORGANIZATION, _PROJECT = "openai-organization", "openai-project"

_RESERVED = {
    "api-key": "use the deployment's credential",
    _ORGANIZATION: "use the option organization",
    _PROJECT: "use the option project",
}


@attrs.frozen(kw_only=True)
class OpenAIOptions:
    """What only the openai runtime understands.

    Attributes:
        endpoint: base URL, with its version: ``https://host/v1``.  Of Azure it is
            ``https://NAME.openai.azure.com/openai/v1``, or without the path
            when ``azure_api_version`` is given.
        organization: OpenAI organization that is billed.
        project: OpenAI project that is billed.
        azure_api_version: date of Azure's older API, whose paths hold the
            deployment's name: ``"2024-10-21"``.
        responses: whether the server has ``/responses``; None: OpenAI and Azure
            do, others do not.
        openai_models: whether the models are OpenAI's own, which take
            ``max_completion_tokens`` and no ``top_k``; None: those of OpenAI and
            Azure are, and elsewhere those with the name of an OpenAI reasoning
            model (``gpt-5``, ``openai/o3-mini``).
        http2: ``"off"``; ``"alpn"``: where the server agrees on it; or
            ``"prior-knowledge"``: spoken at once.
        headers: further headers of every request.
    """

    endpoint: str = DEFAULT_ENDPOINT
    organization: str | None = None
    project: str | None = None
    azure_api_version: str | None = None
    responses: bool | None = None
    openai_models: bool | None = None
    http2: str = "off"
    headers: Mapping[str, str] = attrs.field(factory=dict, hash=False)

    @property
    def needs_credential(self) -> bool:
        """True for OpenAI itself and Azure; a compatible server may take anyone."""
        return self.is_openai

    @property
    def is_openai(self) -> bool:
        """True for OpenAI and for Azure, whose models are OpenAI's."""
        return _is_openai(self.endpoint)

    @property
    def key_header(self) -> str:
        """The name of the header that shows the key."""
        return "api-key" if _host(self.endpoint).endswith(AZURE) else "authorization"

    @property
    def all_headers(self) -> Mapping[str, str]:
        """What every request carries, by lower-case name."""
        headers = dict(self.headers)
        if self.organization is not None:
            headers[_ORGANIZATION] = self.organization
        if self.project is not None:
            headers[_PROJECT] = self.project
        return headers

    def passes(self, model: str) -> frozenset[Dialect]:
        """Return the formats whose requests the server takes as they are."""
        is_openai = self.is_openai
        return _passes(
            responses=is_openai if self.responses is None else self.responses,
            completions=not is_openai or model.startswith(BARE_TEXT),
        )


def _host(endpoint: str) -> str:
    return parse_base_url(endpoint).origin.host


# These are asked several times for each request.
@lru_cache(maxsize=256)
def _is_openai(endpoint: str) -> bool:
    return _host(endpoint).endswith((".openai.com", AZURE))


@cache
def _passes(*, responses: bool, completions: bool) -> frozenset[Dialect]:
    passed = {Dialect.OPENAI_CHAT}
    if responses:
        passed.add(Dialect.OPENAI_RESPONSES)
    if completions:
        passed.add(Dialect.OPENAI_COMPLETIONS)
    return frozenset(passed)


def parse_options(deployment: Deployment) -> OpenAIOptions:
    """Return a deployment's options.

    Raises:
        ConfigError: names the option, its value and what is allowed.
    """
    options = Options(deployment, [field.name for field in attrs.fields(OpenAIOptions)])
    return OpenAIOptions(
        endpoint=options.base_url("endpoint", DEFAULT_ENDPOINT),
        organization=options.header_text("organization", _ORGANIZATION),
        project=options.header_text("project", _PROJECT),
        azure_api_version=options.text("azure_api_version"),
        responses=options.flag("responses"),
        openai_models=options.flag("openai_models"),
        http2=options.one_of("http2", HTTP2, "off"),
        headers=options.headers("headers", _RESERVED),
    )


def check_deployment(deployment: Deployment) -> None:
    """Refuse a deployment that this runtime could never run.

    Raises:
        ConfigError: an option is wrong, or OpenAI's own endpoint has no key.
    """
    options = parse_options(deployment)
    has_key = deployment.credential is not None or deployment.credentials
    if options.needs_credential and not has_key:
        raise ConfigError(
            f"deployment {deployment.name!r}: {options.endpoint} needs a credential;"
            " name the environment variable or the file that holds the API key"
        )
