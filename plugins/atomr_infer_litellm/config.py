"""A deployment's ``[options]`` for the litellm runtime, checked.

What LiteLLM takes beyond OpenAI's format goes in headers, so that a client's
bytes still pass untouched.

Pure.

Source: LiteLLM documentation, "Request Headers", "Tag Based Routing".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.errors import ConfigError
from atomr_infer.remote.http.headers import check_header
from atomr_infer_openai.config import OpenAIOptions, parse_options

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

_MAX_RETRIES = 10


@attrs.frozen(kw_only=True)
class LiteLLMOptions:
    """What only the litellm runtime understands.

    Attributes:
        openai: what it shares with the openai runtime: ``endpoint``, ``headers``.
        tags: LiteLLM's tags, for its routing and its books.
        metadata: what LiteLLM keeps beside each request in its spend log.
        num_retries: how often LiteLLM asks its own upstream again.  We retry
            ourselves, and two loops multiply; so the default is 0.
    """

    openai: OpenAIOptions
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    num_retries: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        headers = dict(self.openai.all_headers)
        headers["x-litellm-num-retries"] = str(self.num_retries)
        if self.tags:
            headers["x-litellm-tags"] = ",".join(self.tags)
        if self.metadata:
            metadata = msgspec.json.encode(dict(self.metadata)).decode()
            headers["x-litellm-spend-logs-metadata"] = metadata
        return headers


def parse_litellm_options(deployment: Deployment) -> LiteLLMOptions:
    """Return a deployment's options.

    Raises:
        ConfigError: names the option, its value and what is allowed.
    """
    rest = dict(deployment.options)
    tags = _tags(deployment, rest.pop("tags", []))
    metadata = _metadata(deployment, rest.pop("metadata", {}))
    retries = _retries(deployment, rest.pop("num_retries", 0))
    if "endpoint" not in rest:
        problem = 'is needed: the proxy\'s base URL, such as "http://localhost:4000/v1"'
        raise _problem(deployment, "endpoint", problem)
    return LiteLLMOptions(
        openai=parse_options(attrs.evolve(deployment, options=rest)),
        tags=tags,
        metadata=metadata,
        num_retries=retries,
    )


def _tags(deployment: Deployment, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _problem(deployment, "tags", f"must be a list of texts, not {value!r}")
    for tag in value:
        if not isinstance(tag, str) or not tag or "," in tag:
            problem = f"holds {tag!r}, which is no text without a comma"
            raise _problem(deployment, "tags", problem)
        _check(deployment, "tags", tag)
    return tuple(value)


def _metadata(deployment: Deployment, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        problem = f"must be a table of names and texts, not {value!r}"
        raise _problem(deployment, "metadata", problem)
    for name, text in value.items():
        if not isinstance(text, str):
            raise _problem(
                deployment, f"metadata.{name}", f"must be a text, not {text!r}"
            )
    metadata = dict(value)
    _check(deployment, "metadata", msgspec.json.encode(metadata).decode())
    return metadata


def _retries(deployment: Deployment, value: object) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool)
    if not is_count or not 0 <= value <= _MAX_RETRIES:  # type: ignore[operator] # is_count says so
        problem = f"must be a whole number from 0 to {_MAX_RETRIES}, not {value!r}"
        raise _problem(deployment, "num_retries", problem)
    return value  # type: ignore[return-value] # is_count says so


def _check(deployment: Deployment, option: str, text: str) -> None:
    try:
        check_header(f"x-litellm-{option}", text)
    except ValueError as error:
        raise _problem(deployment, option, f"cannot be in a header: {error}") from error


def _problem(deployment: Deployment, option: str, problem: str) -> ConfigError:
    return ConfigError(
        f"deployment {deployment.name!r}, runtime 'litellm':"
        f" option {option!r} {problem}"
    )
