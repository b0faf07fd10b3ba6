"""A deployment's ``[options]`` for the openai runtime, checked.

Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.model.dialect import Dialect
from atomr_infer.remote.headers import check_header
from atomr_infer.remote.origin import parse_base_url

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment, OptionValue
    from atomr_infer.wire.openai.upstream_request import MaxTokensMember

DEFAULT_ENDPOINT = "https://api.openai.com/v1"

AZURE = ".openai.azure.com"
"""How the host of an Azure OpenAI resource ends."""

BARE_TEXT = ("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002")
"""How the names of OpenAI's models begin that continue bare text."""

# What the client sets itself; `authorization` is the credential's.
_RESERVED = frozenset(
    {
        "accept",
        "accept-encoding",
        "api-key",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "openai-organization",
        "openai-project",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


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
        headers: further headers of every request.
    """

    endpoint: str = DEFAULT_ENDPOINT
    organization: str | None = None
    project: str | None = None
    azure_api_version: str | None = None
    responses: bool | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict, hash=False)

    @property
    def needs_credential(self) -> bool:
        """True for OpenAI itself and Azure; a compatible server may take anyone."""
        return self.is_openai

    @property
    def max_tokens_member(self) -> MaxTokensMember:
        """How the endpoint spells the limit of output tokens.

        OpenAI's reasoning models refuse ``max_tokens``, and all its models take
        the newer name; compatible servers may know the older one only.
        """
        if self.is_openai:
            return "max_completion_tokens"
        return "max_tokens"

    @property
    def is_openai(self) -> bool:
        """True for OpenAI and for Azure, whose models are OpenAI's."""
        return self._host.endswith((".openai.com", AZURE))

    @property
    def key_header(self) -> str:
        """The name of the header that shows the key."""
        return "api-key" if self._host.endswith(AZURE) else "authorization"

    @property
    def all_headers(self) -> Mapping[str, str]:
        """What every request carries, by lower-case name."""
        headers = dict(self.headers)
        if self.organization is not None:
            headers["openai-organization"] = self.organization
        if self.project is not None:
            headers["openai-project"] = self.project
        return headers

    def passes(self, model: str) -> frozenset[Dialect]:
        """Return the formats whose requests the server takes as they are."""
        is_openai = self.is_openai
        return _passes(
            responses=is_openai if self.responses is None else self.responses,
            completions=not is_openai or model.startswith(BARE_TEXT),
        )

    @property
    def _host(self) -> str:
        return _host(self.endpoint)


# These are asked several times for each request.
@lru_cache(maxsize=256)
def _host(endpoint: str) -> str:
    return parse_base_url(endpoint).origin.host


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
    options = deployment.options
    known = [field.name for field in attrs.fields(OpenAIOptions)]
    for name in options:
        if name not in known:
            raise _problem(
                deployment, name, f"is not known{_did_you_mean(name, known)}"
            )
    endpoint = _text(deployment, "endpoint") or DEFAULT_ENDPOINT
    try:
        parse_base_url(endpoint)
    except ValueError as error:
        raise _problem(deployment, "endpoint", str(error)) from error
    return OpenAIOptions(
        endpoint=endpoint,
        organization=_header_text(deployment, "organization"),
        project=_header_text(deployment, "project"),
        azure_api_version=_text(deployment, "azure_api_version"),
        responses=_flag(deployment, "responses"),
        headers=_headers(deployment),
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


def _text(deployment: Deployment, name: str) -> str | None:
    value = deployment.options.get(name)
    if value is None or (isinstance(value, str) and value):
        return value
    raise _problem(deployment, name, f"must be a text that is not empty, not {value!r}")


def _flag(deployment: Deployment, name: str) -> bool | None:
    value = deployment.options.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise _problem(deployment, name, f"must be true or false, not {value!r}")


def _header_text(deployment: Deployment, name: str) -> str | None:
    value = _text(deployment, name)
    if value is not None:
        _check_header(deployment, name, "openai-" + name, value)
    return value


def _headers(deployment: Deployment) -> dict[str, str]:
    given: OptionValue = deployment.options.get("headers", {})
    if not isinstance(given, Mapping):
        raise _problem(deployment, "headers", "must be a table of names and texts")
    headers: dict[str, str] = {}
    for name, value in given.items():
        option = f"headers.{name}"
        if name.lower() in _RESERVED:
            raise _problem(deployment, option, f"cannot be set{_instead(name)}")
        if name.lower() in headers:
            raise _problem(deployment, option, "is given twice")
        if not isinstance(value, str):
            raise _problem(deployment, option, "must be a text")
        _check_header(deployment, option, name, value)
        headers[name.lower()] = value
    return headers


def _instead(name: str) -> str:
    if name.lower() == "authorization":
        return "; use the deployment's credential"
    if name.lower().startswith("openai-"):
        return "; use the option organization or project"
    return "; the client sets it"


def _check_header(deployment: Deployment, option: str, name: str, value: str) -> None:
    try:
        check_header(name, value)
    except ValueError as error:
        raise _problem(deployment, option, str(error)) from error


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; allowed are {', '.join(known)}"


def _problem(deployment: Deployment, option: str, problem: str) -> ConfigError:
    return ConfigError(
        f"deployment {deployment.name!r}, runtime {deployment.runtime!r}:"
        f" option {option!r} {problem}"
    )
