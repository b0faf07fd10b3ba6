"""An answer of something that is not the API that was asked for, and the likely fix.

A base URL without its version, or with one too many, or that of a provider of
another dialect: the server knows no such path and says so, often as a 404 that looks
like one about the model.  Its client cannot do anything about that; the operator
can, when told which deployment it is and what to write instead.

Pure.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import attrs
import msgspec

from atomr_infer.errors import UpstreamProtocolError

_UNKNOWN_URL = "unknown_url"

_PATHLESS = frozenset(
    {
        "",
        "not found",
        "resource not found",
        "page not found",
        "404 page not found",
        "route not found",
        "endpoint not found",
        "path not found",
        "method not allowed",
    }
)

_BEGINNINGS = (
    "invalid url",
    "unknown request url",
    "unrecognized request url",
    "unknown endpoint",
    "unexpected endpoint",
    "unknown path",
    "unknown route",
    "invalid path",
    "no route",
    "cannot post",
    "the requested url",
)

_VERSION = re.compile(r"/v[0-9]")


@attrs.frozen(kw_only=True)
class Place:
    """Who was asked.

    Attributes:
        deployment: the deployment's name.
        endpoint: its base URL, without any secret.
        runtime: the runtime whose dialect was spoken.
        api: what that runtime takes it for, in words: ``an OpenAI-like API``.
        versioned: whether the base URL must hold a version.
    """

    deployment: str
    endpoint: str
    runtime: str
    api: str
    versioned: bool = False


def is_about_the_path(status: int, message: str, code: str | None = None) -> bool:
    """Whether an error says that there is nothing at the path, whoever is asked for.

    >>> is_about_the_path(404, "Invalid URL (POST /chat/completions)")
    True
    >>> is_about_the_path(404, "The model `x` does not exist", "model_not_found")
    False
    """
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return True
    if status != HTTPStatus.NOT_FOUND:
        return False
    if code == _UNKNOWN_URL:
        return True
    if code is not None and not code.isdigit():
        return False
    said = message.strip().rstrip(".").lower()
    return said in _PATHLESS or said.startswith(_BEGINNINGS)


def not_an_api(status: int, body: bytes, place: Place) -> UpstreamProtocolError:
    """Return the error for a server that is not what its deployment says.

    Args:
        status: what it answered.
        body: and how.
        place: who was asked.
    """
    return UpstreamProtocolError(
        f"deployment {place.deployment!r}: {place.endpoint} answered {status} and not "
        f"as {place.api} does; {_fix(body, place)}",
        code="not_an_api",
        status=status,
    )


def _fix(body: bytes, place: Place) -> str:
    speaks = _runtime_of(body)
    if speaks is not None and speaks != place.runtime:
        return f"it speaks another dialect: try runtime = {speaks!r}"
    if place.versioned and _VERSION.search(place.endpoint) is None:
        return f'try endpoint = "{place.endpoint.rstrip("/")}/v1"'
    return "check the deployment's endpoint"


def _runtime_of(body: bytes) -> str | None:
    """Return whose errors look like that; None: nobody's, or that of many."""
    try:
        members = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(members, list) and members:
        members = members[0]
    if not isinstance(members, dict) or not isinstance(members.get("error"), dict):
        return None
    error = members["error"]
    if members.get("type") == "error":
        return "anthropic"
    if isinstance(error.get("code"), int) and isinstance(error.get("status"), str):
        return "gemini"
    if {"message", "type", "param", "code"} <= set(error):
        return "openai"
    return None
