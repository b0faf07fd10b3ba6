"""OAuth2: a form to a token endpoint, a bearer token back.

:func:`fetch_token` is for any grant; the provider ``oauth2`` is the grant for
machines, *client credentials*::

    credential = { provider = "oauth2", token_url = "https://login.example/token",
                   client_id = "gateway", client_secret = { env = "CLIENT_SECRET" },
                   scope = "models.run" }

What the endpoint says is shown in errors, without the secrets that it was sent.

Source: RFC 6749, 4.4 (client credentials), 5.1 (answer), 5.2 (errors).
"""

from __future__ import annotations

import math
import time
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import msgspec

from atomr_infer import errors
from atomr_infer.errors import ConfigError
from atomr_infer.model.secret import EnvSecret, FileSecret, Secret
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.headers import check_header
from atomr_infer.remote.http.origin import parse_base_url
from atomr_infer.remote.http.retry_after import retry_after_s
from atomr_infer.runtimes.credentials import Fetched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr_infer.remote.http.dialing.tcp import Connect
    from atomr_infer.remote.http.response import HttpResponse
    from atomr_infer.runtimes.credentials import ProviderContext

_MAX_ANSWER_BYTES = 65536
_MAX_SAID_CHARS = 300
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

_REFUSED = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.PAYMENT_REQUIRED,
        HTTPStatus.FORBIDDEN,
    }
)


def check_token_url(url: object) -> str:
    """Return a token endpoint's URL.

    Raises:
        ValueError: it is none, or would carry secrets in the clear.
    """
    if not isinstance(url, str):
        raise ValueError("a token URL is a string")  # noqa: TRY004 - one error for all
    origin = parse_base_url(url.partition("?")[0]).origin
    if not origin.tls and origin.host not in _LOOPBACK:
        raise ValueError(f"{url!r} is not encrypted; a token URL starts with https://")
    return url


async def fetch_token(
    url: str,
    form: Mapping[str, str],
    *,
    secrets: Sequence[Secret],
    connect: Connect | None = None,
) -> Fetched:
    """Ask a token endpoint for a token.

    Args:
        url: the endpoint's URL; see :func:`check_token_url`.
        form: the grant, with its secrets.
        secrets: what must not show in an error.
        connect: opens streams; None: TCP and TLS.

    Raises:
        UpstreamAuthError: the endpoint refuses the grant.
        RateLimitedError: it asks us to slow down.
        UpstreamError: it cannot be reached, fails, or answers something else.

    Cancellation: closes the connection.
    """
    parts = urlsplit(check_token_url(url))
    headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("user-agent", "atomr-infer"),
    ]
    origin = f"{parts.scheme}://{parts.netloc}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    async with (
        HttpClient(origin, headers=headers, connect=connect) as client,
        client.request("POST", path, body=urlencode(form).encode()) as response,
    ):
        return await _token(response, secrets)


async def _token(response: HttpResponse, secrets: Sequence[Secret]) -> Fetched:
    body = await response.read(limit_bytes=_MAX_ANSWER_BYTES)
    members = _members(body)
    if response.status != HTTPStatus.OK:
        raise _refusal(response, members, secrets)
    text = members.get("access_token")
    if not isinstance(text, str) or not text:
        raise _malformed("its answer holds no access_token")
    try:
        check_header("authorization", f"Bearer {text}")
    except ValueError as error:
        raise _malformed("its token cannot stand in a header") from error
    return Fetched(Secret(text), _life_s(members.get("expires_in")))


def _members(body: bytes) -> Mapping[str, object]:
    try:
        members = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def _life_s(value: object) -> float | None:
    """Return ``expires_in``; some endpoints send it as a string."""
    if value is None:
        return None
    life_s = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            life_s = float(value)
        except (ValueError, OverflowError):
            life_s = math.nan
    if not (math.isfinite(life_s) and life_s > 0):
        raise _malformed("its expires_in is no number of seconds")
    return life_s


def _refusal(
    response: HttpResponse, members: Mapping[str, object], secrets: Sequence[Secret]
) -> errors.InferenceError:
    status = response.status
    words = [members.get("error"), members.get("error_description")]
    said = ": ".join(word for word in words if isinstance(word, str) and word)
    for secret in secrets:
        said = secret.blot(said)
    text = f"the token endpoint answered {status}"
    if said:
        text += f": {' '.join(said.split())[:_MAX_SAID_CHARS]}"
    if status in _REFUSED:
        return errors.UpstreamAuthError(text, code="token_refused", status=status)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        wait_s = retry_after_s(response.headers, now_epoch_s=time.time())
        return errors.RateLimitedError(text, retry_after_s=wait_s, status=status)
    return errors.UpstreamError(text, code="token_endpoint", status=status)


def _malformed(problem: str) -> errors.UpstreamProtocolError:
    return errors.UpstreamProtocolError(
        f"the token endpoint does not speak OAuth2: {problem}", code="token_endpoint"
    )


_REQUIRED = ("token_url", "client_id", "client_secret")
_OPTIONAL = ("scope", "audience")


class ClientCredentials:
    """The provider ``oauth2``."""

    name = "oauth2"

    def missing(self) -> tuple[str, ...]:
        """Nothing: the client is part of the base install."""
        return ()

    def validate(self, options: Mapping[str, object]) -> None:
        """Refuse options that could never work.

        Raises:
            ConfigError: names the option and what is allowed.
        """
        check_options(self.name, options, required=_REQUIRED, optional=_OPTIONAL)
        try:
            check_token_url(options["token_url"])
        except ValueError as error:
            raise option_error(self.name, "token_url", str(error)) from error
        check_secret(self.name, options, "client_secret")
        for name in ("client_id", *_OPTIONAL):
            if not isinstance(options.get(name, ""), str):
                raise option_error(self.name, name, "must be a string")

    async def fetch(
        self, options: Mapping[str, object], context: ProviderContext
    ) -> Fetched:
        """Ask the token endpoint; see :func:`fetch_token`."""
        secret = context.secret(options["client_secret"])
        form = {
            "grant_type": "client_credentials",
            "client_id": str(options["client_id"]),
            "client_secret": secret.reveal(),
        }
        form |= {name: str(options[name]) for name in _OPTIONAL if name in options}
        return await fetch_token(str(options["token_url"]), form, secrets=[secret])


def check_options(
    provider: str,
    options: Mapping[str, object],
    *,
    required: Sequence[str],
    optional: Sequence[str],
) -> None:
    """Refuse unknown options, and miss required ones.

    Raises:
        ConfigError: names the option.
    """
    known = (*required, *optional)
    for name in options:
        if name not in known:
            raise option_error(provider, name, f"is not known; use {', '.join(known)}")
    for name in required:
        if name not in options:
            raise option_error(provider, name, "is missing")


def check_secret(provider: str, options: Mapping[str, object], name: str) -> None:
    """Refuse a secret that stands in the configuration itself.

    Raises:
        ConfigError: names the option and never shows its value.
    """
    if not isinstance(options[name], (EnvSecret, FileSecret, Secret)):
        fix = 'write it as { env = "NAME" } or { file = "PATH" }'
        raise option_error(provider, name, f"does not belong in this file; {fix}")


def option_error(provider: str, option: str, problem: str) -> ConfigError:
    """Return the error for a provider's option."""
    return ConfigError(f"credential provider {provider!r}: option {option!r} {problem}")


PROVIDER = ClientCredentials()
