"""Who may use a gateway that has keys, and where each SDK puts them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.cluster import Cluster
from atomr_infer.gateway.access.door import Door
from atomr_infer.gateway.access.keys import GatewayKeys, presented_key
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import HeaderSecret, Secret
from atomr_infer.testing.upstream import open_openai_upstream
from tests.gateway.http import Answer, request

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = GatewayKeys([Secret("one"), Secret("two")])


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"authorization": "Bearer two"}, {}),
        ({"authorization": "bearer  two "}, {}),
        ({"x-api-key": "one"}, {}),
        ({"x-goog-api-key": "one"}, {}),
        ({"api-key": "one"}, {}),
        ({}, {"key": "one"}),
        ({"x-api-key": "one", "authorization": "Bearer no"}, {}),
    ],
)
def test_a_key_opens_wherever_an_sdk_puts_it(
    headers: Mapping[str, str], query: Mapping[str, str]
) -> None:
    assert KEYS.allow(headers, query)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, {}),
        ({"authorization": "Bearer three"}, {}),
        ({"authorization": "Bearer "}, {}),
        ({"authorization": "Basic two"}, {}),
        ({"x-api-key": "on"}, {}),
        ({"x-api-key": ""}, {"key": ""}),
        ({"x-api-key": "three", "authorization": "Bearer two"}, {}),
    ],
)
def test_anything_else_does_not(
    headers: Mapping[str, str], query: Mapping[str, str]
) -> None:
    assert not KEYS.allow(headers, query)


def test_without_keys_a_gateway_is_open() -> None:
    assert GatewayKeys().allow({}, {})
    assert not GatewayKeys().needed


def test_only_a_header_that_goes_on_is_looked_at() -> None:
    headers = {"authorization": "Bearer one", "x-theirs": "two", "accept": "one"}
    door = Door(KEYS)
    assert door.without(headers, ()) is headers
    assert door.without(headers, ["x-other", "accept", "x-theirs"]) == {
        "authorization": "Bearer one"
    }
    assert Door().without(headers, ["x-theirs"]) is headers


def test_a_key_is_not_shown() -> None:
    assert "one" not in repr(KEYS)
    assert presented_key({}, {}) is None


ROUTES = [
    ("POST", "/v1/chat/completions", "invalid_request_error"),
    ("POST", "/v1/responses", "invalid_request_error"),
    ("POST", "/v1/embeddings", "invalid_request_error"),
    ("GET", "/v1/models", "invalid_request_error"),
    ("GET", "/", "invalid_request_error"),
    ("POST", "/v1/messages", "authentication_error"),
    ("POST", "/v1/messages/count_tokens", "authentication_error"),
    ("POST", "/v1beta/models/m:generateContent", "UNAUTHENTICATED"),
]


@pytest.mark.parametrize(("method", "path", "kind"), ROUTES)
async def test_a_request_without_a_key_is_told_so_in_its_dialect(
    method: str, path: str, kind: str
) -> None:
    async with Cluster.connect("inproc://keys") as cluster:
        await cluster.deploy(Deployment(name="m", runtime="mock"))
        gateway = await cluster.serve("127.0.0.1:0", keys=[Secret("open-sesame")])
        port = int(gateway.url.rpartition(":")[2])
        answer = await request(port, method, path, b"{}")
        probe = await request(port, "GET", "/healthz")
        ready = await request(port, "GET", "/readyz")
    assert answer.status == 401
    assert kind in _kinds(answer)
    assert (probe.status, ready.status) == (200, 200)


@pytest.mark.parametrize(
    ("shown", "status", "sent"),
    [
        ({"authorization": "Bearer open-sesame"}, 400, []),
        ({"x-api-key": "open-sesame", "authorization": "open-sesame"}, 400, []),
        ({"x-api-key": "open-sesame", "authorization": "Bearer no"}, 200, ["no"]),
    ],
)
async def test_a_key_that_opens_the_gateway_is_no_key_for_an_upstream(
    shown: dict[str, str], status: int, sent: list[str]
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with (
        open_openai_upstream() as upstream,
        Cluster.connect("inproc://keys") as cluster,
    ):
        theirs = Deployment(
            name="m",
            runtime="openai",
            credential=HeaderSecret("authorization"),
            options={"endpoint": upstream.base_url},
        )
        await cluster.deploy(theirs)
        gateway = await cluster.serve("127.0.0.1:0", keys=[Secret("open-sesame")])
        port = int(gateway.url.rpartition(":")[2])
        path, data = "/v1/chat/completions", json.dumps(body).encode()
        answer = await request(port, "POST", path, data, **shown)
    assert answer.status == status
    keys = [each.headers["authorization"] for each in upstream.requests]
    assert keys == [f"Bearer {key}" for key in sent]


def _kinds(answer: Answer) -> set[str]:
    error: dict[str, Any] = json.loads(answer.body)["error"]
    return {str(error.get(name)) for name in ("type", "status", "code")}


@pytest.mark.parametrize(
    ("headers", "is_told"),
    [
        ({"authorization": "one"}, True),
        ({"authorization": "Bearer three"}, False),
        ({"authorization": "Bearer "}, False),
        ({"authorization": "Basic b25l"}, False),
        ({"authorization": "one", "x_api_key": "three"}, False),
        ({}, False),
    ],
)
async def test_a_key_without_its_scheme_is_told_what_is_missing(
    headers: dict[str, str], is_told: bool
) -> None:
    async with Cluster.connect("inproc://keys") as cluster:
        gateway = await cluster.serve("127.0.0.1:0", keys=[Secret("one")])
        port = int(gateway.url.rpartition(":")[2])
        answer = await request(port, "GET", "/v1/models", b"", **headers)
    assert answer.status == 401
    assert ("write 'Bearer ' in front" in answer.json["error"]["message"]) is is_told
