"""Google's access tokens, for Vertex AI: from a service account's key file.

The provider ``google``::

    credential = { provider = "google", key = { file = "service-account.json" } }

Without ``key`` the file is the one that ``GOOGLE_APPLICATION_CREDENTIALS``
names, as Google's own libraries have it.  Two kinds of file are read:

``service_account``   signs a statement (a JWT, RS256), which buys a token; needs
                      the package ``cryptography``.
``authorized_user``   what ``gcloud auth application-default login`` writes; its
                      refresh token buys a token.

Source: Google Cloud, "Using OAuth 2.0 for server to server applications";
RFC 7523, 2.1; RFC 7515.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec

from atomr_infer.errors import MissingSecretError
from atomr_infer.model.secret import FileSecret, Secret
from atomr_infer.remote.credentials.oauth2 import (
    check_options,
    check_secret,
    check_token_url,
    fetch_token,
    option_error,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.runtimes.credentials import Fetched, ProviderContext

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
"""What Vertex AI asks for."""

KEY_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"

_TOKEN_URL = "https://oauth2.googleapis.com/token"
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"

# The longest that Google accepts.
_STATEMENT_LIFE_S = 3600


class GoogleCredentials:
    """The provider ``google``."""

    name = "google"

    def missing(self) -> tuple[str, ...]:
        """``cryptography``, where it is not installed."""
        return () if find_spec("cryptography") else ("cryptography",)

    def validate(self, options: Mapping[str, object]) -> None:
        """Refuse options that could never work.

        Raises:
            ConfigError: names the option and what is allowed.
        """
        check_options(self.name, options, required=(), optional=("key", "scope"))
        if "key" in options:
            check_secret(self.name, options, "key")
        if not isinstance(options.get("scope", ""), str):
            raise option_error(self.name, "scope", "must be a string")

    async def fetch(
        self, options: Mapping[str, object], context: ProviderContext
    ) -> Fetched:
        """Buy a token; see :func:`~.credentials_oauth2.fetch_token`.

        Raises:
            MissingSecretError: there is no key file, or it is none.
        """
        key = _key_members(_key_text(options, context), context)
        scope = str(options.get("scope", SCOPE))
        match key.get("type"):
            case "service_account":
                return await _from_statement(key, scope, context)
            case "authorized_user":
                return await _from_refresh_token(key, context)
            case kind:
                known = "'service_account' or 'authorized_user'"
                raise _no_key(context, f"the key's type is {kind!r:.60}, not {known}")


def _key_text(options: Mapping[str, object], context: ProviderContext) -> Secret:
    if "key" in options:
        return context.secret(options["key"])
    path = context.environ.get(KEY_VARIABLE, "")
    if not path:
        raise _no_key(context, f"set {KEY_VARIABLE} or the provider's option key")
    return context.secret(FileSecret(path))


def _key_members(text: Secret, context: ProviderContext) -> Mapping[str, object]:
    try:
        members = msgspec.json.decode(text.reveal())
    except (msgspec.DecodeError, RecursionError):
        members = None
    if not isinstance(members, dict):
        # Not chained: the decoder's error may show what it read.
        raise _no_key(context, "the key is not the JSON that Google hands out")
    return members


async def _from_statement(
    key: Mapping[str, object], scope: str, context: ProviderContext
) -> Fetched:
    url = _url(key, context)
    private_key = _text(key, "private_key", context)
    claims = {
        "iss": _text(key, "client_email", context),
        "scope": scope,
        "aud": url,
    }
    statement = _signed(
        claims,
        private_key,
        key_id=key.get("private_key_id"),
        context=context,
        now_epoch_s=int(time.time()),
    )
    form = {"grant_type": _JWT_GRANT, "assertion": statement.reveal()}
    return await fetch_token(url, form, secrets=[statement, Secret(private_key)])


async def _from_refresh_token(
    key: Mapping[str, object], context: ProviderContext
) -> Fetched:
    secret = _text(key, "client_secret", context)
    refresh = _text(key, "refresh_token", context)
    form = {
        "grant_type": "refresh_token",
        "client_id": _text(key, "client_id", context),
        "client_secret": secret,
        "refresh_token": refresh,
    }
    secrets = [Secret(secret), Secret(refresh)]
    return await fetch_token(_url(key, context), form, secrets=secrets)


def _signed(
    claims: Mapping[str, object],
    private_key: str,
    *,
    key_id: object,
    context: ProviderContext,
    now_epoch_s: int,
) -> Secret:
    # Imported here: deployments of other providers do without it.
    from cryptography.hazmat.primitives.asymmetric.padding import (  # noqa: PLC0415
        PKCS1v15,
    )
    from cryptography.hazmat.primitives.asymmetric.rsa import (  # noqa: PLC0415
        RSAPrivateKey,
    )
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_private_key,
    )

    try:
        signer = load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError):
        # Not chained: it may show the key.
        raise _no_key(context, "its private_key is not a key in PEM") from None
    if not isinstance(signer, RSAPrivateKey):
        raise _no_key(context, "its private_key is not one of RSA")
    head = {"alg": "RS256", "typ": "JWT"}
    if isinstance(key_id, str):
        head["kid"] = key_id
    times = {"iat": now_epoch_s, "exp": now_epoch_s + _STATEMENT_LIFE_S}
    signed = f"{_part(head)}.{_part({**claims, **times})}"
    signature = signer.sign(signed.encode(), PKCS1v15(), SHA256())
    return Secret(f"{signed}.{_base64(signature)}")


def _part(members: Mapping[str, object]) -> str:
    return _base64(msgspec.json.encode(members))


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _url(key: Mapping[str, object], context: ProviderContext) -> str:
    try:
        return check_token_url(key.get("token_uri", _TOKEN_URL))
    except ValueError as error:
        raise _no_key(context, f"its token_uri cannot be used: {error}") from error


def _text(key: Mapping[str, object], name: str, context: ProviderContext) -> str:
    value = key.get(name)
    if not isinstance(value, str) or not value:
        raise _no_key(context, f"the key has no {name}")
    return value


def _no_key(context: ProviderContext, problem: str) -> MissingSecretError:
    return MissingSecretError(
        f"deployment {context.deployment!r} has no credential of Google's: {problem}"
    )


PROVIDER = GoogleCredentials()
