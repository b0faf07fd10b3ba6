"""Tokens from a real endpoint on a socket, and what it may do to us."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import attrs
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from atomr_infer import errors
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import EnvSecret, FileSecret, PluginSecret, Secret
from atomr_infer.remote.credentials.build import make_credentials
from atomr_infer.remote.credentials.google import SCOPE
from atomr_infer.remote.credentials.oauth2 import fetch_token
from atomr_infer.runtimes.credentials import Fetched
from tests.at_once import at_once, stand_still

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from trio.testing import MockClock

CLIENT_SECRET = "s3cret-client-0123456789"


@attrs.define(eq=False)
class Endpoint:
    """A token endpoint.

    Attributes:
        url: its URL.
        status: of its answers.
        answer: its answers' body.
        headers: further headers of its answers.
        forms: what it was asked, in order.
        hang: True: it says nothing.
        left: set when a client left without its answer.
    """

    url: str = ""
    status: int = 200
    answer: bytes = b'{"access_token":"t0","token_type":"Bearer","expires_in":3599}'
    headers: str = ""
    forms: list[dict[str, str]] = attrs.field(factory=list)
    hang: bool = False
    left: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, stream: trio.SocketStream) -> None:
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += await stream.receive_some()
        head, _, body = raw.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /token?v=1 HTTP/1.1\r\n")
        assert b"content-type: application/x-www-form-urlencoded" in head
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        while len(body) < length:
            body += await stream.receive_some()
        self.forms.append(dict(parse_qsl(body.decode(), strict_parsing=True)))
        if self.hang:
            assert await stream.receive_some() == b""
            self.left.set()
            return
        start = f"HTTP/1.1 {self.status} X\r\ncontent-length: {len(self.answer)}\r\n"
        await stream.send_all(f"{start}{self.headers}\r\n".encode() + self.answer)


@asynccontextmanager
async def open_endpoint(**behaviour: Any) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(**behaviour)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    endpoint.url = f"http://127.0.0.1:{port}/token?v=1"

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await endpoint.serve(stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        yield endpoint
        nursery.cancel_scope.cancel()


async def fetched(endpoint: Endpoint) -> Fetched | errors.InferenceError:
    form = {"client_secret": CLIENT_SECRET}
    try:
        return await fetch_token(endpoint.url, form, secrets=[Secret(CLIENT_SECRET)])
    except errors.InferenceError as error:
        # Returned, not raised: the endpoint's nursery would wrap it.
        return error


async def token(provider: str, options: dict[str, object], **environ: str) -> str:
    deployment = Deployment(
        name="d", runtime="openai", credential=PluginSecret(provider, options)
    )
    grant = await make_credentials(deployment, environ).current()
    assert grant.secret is not None
    return grant.secret.reveal()


# --- the endpoint's answers -------------------------------------------------


@pytest.mark.parametrize(
    ("life", "life_s"),
    [(b"3599", 3599.0), (b'"3599"', 3599.0), (b"0.5", 0.5), (b"null", None)],
)
async def test_a_token_comes_with_its_life(life: bytes, life_s: float | None) -> None:
    answer = b'{"access_token":"t0","expires_in":' + life + b"}"
    async with open_endpoint(answer=answer) as endpoint:
        assert await fetched(endpoint) == Fetched(Secret("t0"), life_s)
    assert endpoint.forms == [{"client_secret": CLIENT_SECRET}]


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (400, errors.UpstreamAuthError),
        (401, errors.UpstreamAuthError),
        (403, errors.UpstreamAuthError),
        (429, errors.RateLimitedError),
        (500, errors.UpstreamError),
        (302, errors.UpstreamError),
    ],
)
async def test_a_refusal_is_told_in_the_endpoint_s_words(
    status: int, error_class: type[errors.InferenceError]
) -> None:
    answer = (
        '{"error":"invalid_client","error_description":'
        f'"no client has\\nthe secret {CLIENT_SECRET[:12]}***"}}'
    ).encode()
    async with open_endpoint(
        status=status, answer=answer, headers="retry-after: 7\r\n"
    ) as endpoint:
        error = await fetched(endpoint)
    assert type(error) is error_class
    assert error.message == (
        f"the token endpoint answered {status}: invalid_client: no client has the "
        "secret ******"
    )
    assert error.status == status
    assert error.retry_after_s == (7.0 if status == 429 else None)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b"\xff",
        b"[" * 10_000,
        b"{}",
        b'{"access_token":""}',
        b'{"access_token":5}',
        b'{"access_token":"a\\nb"}',
        b'{"access_token":"t","expires_in":0}',
        b'{"access_token":"t","expires_in":-5}',
        b'{"access_token":"t","expires_in":true}',
        b'{"access_token":"t","expires_in":"soon"}',
        b'{"access_token":"t","expires_in":1e999}',
        b'{"access_token":"t","expires_in":' + b"9" * 400 + b"}",
        b'{"access_token":"t","expires_in":[]}',
        b'{"access_token":"' + b"t" * 100_000 + b'"}',
    ],
    ids=repr,
)
async def test_an_endpoint_that_lies_is_a_typed_error(answer: bytes) -> None:
    async with open_endpoint(answer=answer) as endpoint:
        error = await fetched(endpoint)
    assert type(error) is errors.UpstreamProtocolError


async def test_an_endpoint_that_cuts_its_answer_is_a_typed_error() -> None:
    async with open_endpoint(headers="content-length: 500\r\n") as endpoint:
        assert isinstance(await fetched(endpoint), errors.UpstreamError)


async def test_an_endpoint_that_is_not_there_is_a_typed_error() -> None:
    async with open_endpoint() as endpoint:
        pass
    assert type(await fetched(endpoint)) is errors.UpstreamConnectError


async def test_who_gives_up_closes_the_connection(mock_clock: MockClock) -> None:
    mock_clock.rate = 1.0
    async with open_endpoint(hang=True) as endpoint:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetched, endpoint)
            while not endpoint.forms:  # noqa: ASYNC110 - across a real socket
                await trio.sleep(0.005)
            stand_still(mock_clock)
            nursery.cancel_scope.cancel()
        await at_once(endpoint.left.is_set, mock_clock)


# --- client credentials -----------------------------------------------------


async def test_a_client_buys_a_token_with_its_secret() -> None:
    async with open_endpoint() as endpoint:
        options: dict[str, object] = {
            "token_url": endpoint.url,
            "client_id": "gateway",
            "client_secret": EnvSecret("CLIENT_SECRET"),
            "scope": "models.run",
        }
        got = await token("oauth2", options, CLIENT_SECRET=CLIENT_SECRET)
    assert got == "t0"
    assert endpoint.forms == [
        {
            "grant_type": "client_credentials",
            "client_id": "gateway",
            "client_secret": CLIENT_SECRET,
            "scope": "models.run",
        }
    ]


async def test_a_secret_that_is_not_there_is_told_at_the_request() -> None:
    options: dict[str, object] = {
        "token_url": "https://login.example/token",
        "client_id": "gateway",
        "client_secret": EnvSecret("CLIENT_SECRET"),
    }
    with pytest.raises(errors.UpstreamAuthError, match="CLIENT_SECRET is not set"):
        await token("oauth2", options)


# --- Google -----------------------------------------------------------------


@pytest.fixture(scope="module")
def signer() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    form = PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


@pytest.fixture
def key_file(
    tmp_path: Path, signer: rsa.RSAPrivateKey
) -> Callable[[str], tuple[str, dict[str, Any]]]:
    """Write a service account's key file for an endpoint; return path and content."""

    def write(url: str, **changes: Any) -> tuple[str, dict[str, Any]]:
        members = {
            "type": "service_account",
            "client_email": "gateway@project.iam.gserviceaccount.com",
            "private_key": pem(signer),
            "private_key_id": "k1",
            "token_uri": url,
            **changes,
        }
        path = tmp_path / "key.json"
        path.write_text(json.dumps(members, indent=2))
        return str(path), members

    return write


def decoded(part: str) -> Any:
    return json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))


async def test_a_service_account_buys_a_token_with_a_signed_statement(
    key_file: Any, signer: rsa.RSAPrivateKey
) -> None:
    async with open_endpoint() as endpoint:
        path, members = key_file(endpoint.url)
        before = int(time.time())
        got = await token("google", {"key": FileSecret(path)})
        after = int(time.time())
    assert got == "t0"
    (form,) = endpoint.forms
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    head, claims, signature = form["assertion"].split(".")
    assert decoded(head) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    said = decoded(claims)
    issued_at = said.pop("iat")
    assert before <= issued_at <= after
    assert said == {
        "iss": members["client_email"],
        "scope": SCOPE,
        "aud": endpoint.url,
        "exp": issued_at + 3600,
    }
    raw = urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    signer.public_key().verify(
        raw, f"{head}.{claims}".encode(), padding.PKCS1v15(), SHA256()
    )


async def test_the_file_that_google_s_own_variable_names_is_read(
    key_file: Any,
) -> None:
    async with open_endpoint() as endpoint:
        path, _ = key_file(endpoint.url)
        got = await token("google", {}, GOOGLE_APPLICATION_CREDENTIALS=path)
    assert got == "t0"


async def test_a_user_s_refresh_token_buys_a_token(key_file: Any) -> None:
    user = {
        "type": "authorized_user",
        "client_id": "c",
        "client_secret": "cs",
        "refresh_token": "rt",
    }
    async with open_endpoint() as endpoint:
        path, _ = key_file(endpoint.url, **user)
        assert await token("google", {"key": FileSecret(path)}) == "t0"
    user["grant_type"] = "refresh_token"
    del user["type"]
    assert endpoint.forms == [user]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"type": "external_account"}, "the key's type is 'external_account', not"),
        ({"private_key": None}, "the key has no private_key"),
        ({"private_key": "s3cret"}, "its private_key is not a key in PEM"),
        (
            {"private_key": pem(ec.generate_private_key(ec.SECP256R1()))},
            "its private_key is not one of RSA",
        ),
        ({"token_uri": "http://evil.example/"}, "its token_uri cannot be used"),
    ],
)
async def test_a_key_file_that_is_none_is_told_unshown(
    key_file: Any, changes: dict[str, Any], problem: str
) -> None:
    path, _ = key_file("https://oauth2.googleapis.com/token", **changes)
    with pytest.raises(errors.UpstreamAuthError, match=problem) as caught:
        await token("google", {"key": FileSecret(path)})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "sk-s3cret", "[]", "{"])
async def test_a_key_file_that_is_not_json_is_told_unshown(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "key.json"
    path.write_text(content)
    with pytest.raises(errors.UpstreamAuthError) as caught:
        await token("google", {"key": FileSecret(str(path))})
    assert "s3cret" not in str(caught.value)


async def test_without_any_key_the_remedy_is_told() -> None:
    with pytest.raises(errors.UpstreamAuthError, match="set GOOGLE_APPLICATION_CRED"):
        await token("google", {})
