"""Web pages: who may read answers, what a preflight and OPTIONS get; HEAD."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamEnded

from atomr_infer.cluster import Cluster
from atomr_infer.errors import ConfigError
from atomr_infer.gateway.access.cors import Cors
from atomr_infer.gateway.exchanges.answer_headers import OWN_HEADERS
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from tests.gateway.http import Answer, chat_body, received, request
from tests.gateway.http1 import Client, get

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve

PAGE = "https://app.example"
MOCK = Deployment(name="m", runtime="mock")
CHAT = "/v1/chat/completions"

ASKS = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


def cors_of(answer: Answer) -> dict[str, str]:
    """The headers that a browser looks at, without the list of ours."""
    own = "access-control-expose-headers"
    return {
        name.removeprefix("access-control-"): value
        for name, value in answer.headers.items()
        if name == "vary" or (name.startswith("access-control-") and name != own)
    }


async def test_a_page_s_browser_is_let_ask_without_a_key(serve: Serve) -> None:
    locked = {"keys": [Secret("a-key-of-the-gateway")], "cors_origins": (PAGE,)}
    async with serve(MOCK, **locked) as running:
        answer = await request(running.port, "OPTIONS", CHAT, b"", **ASKS)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert cors_of(answer) == {
        "allow-origin": PAGE,
        "allow-methods": "POST, OPTIONS",
        "allow-headers": "authorization,content-type,x-stainless-os",
        "max-age": "7200",
        "vary": "origin",
    }


ANSWERS = [
    ("GET", "/healthz", b"", 200),
    ("POST", CHAT, chat_body(), 200),
    ("POST", CHAT, chat_body(stream=True), 200),
    ("POST", CHAT, b"{", 400),
    ("POST", CHAT, chat_body(model="unknown"), 404),
    ("GET", CHAT, b"", 405),
    ("GET", "/nothing", b"", 404),
    ("POST", "/v1/embeddings", b"{}", 400),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), ANSWERS)
async def test_a_page_may_read_each_answer(
    serve: Serve, method: str, path: str, body: bytes, status: int
) -> None:
    async with serve(MOCK, cors_origins=(PAGE,)) as running:
        answer = await request(running.port, method, path, body, origin=PAGE)
    assert answer.status == status
    assert cors_of(answer) == {"allow-origin": PAGE, "vary": "origin"}
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert exposed == list(OWN_HEADERS)


async def test_a_page_may_read_that_its_key_is_missing(serve: Serve) -> None:
    locked = {"keys": [Secret("a-key-of-the-gateway")], "cors_origins": (PAGE,)}
    async with serve(MOCK, **locked) as running:
        answer = await request(running.port, "POST", CHAT, chat_body(), origin=PAGE)
    assert answer.status == 401
    assert cors_of(answer)["allow-origin"] == PAGE


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "https://app.example.evil", "null", "", PAGE + "/"],
)
async def test_another_page_is_told_nothing(serve: Serve, origin: str) -> None:
    async with serve(MOCK, cors_origins=(PAGE,)) as running:
        asks = {**ASKS, "origin": origin}
        preflight = await request(running.port, "OPTIONS", CHAT, b"", **asks)
        answer = await request(running.port, "POST", CHAT, chat_body(), origin=origin)
    assert [cors_of(preflight), cors_of(answer)] == [{"vary": "origin"}] * 2


async def test_by_default_no_page_is_told_anything(serve: Serve) -> None:
    async with serve(MOCK) as running:
        preflight = await request(running.port, "OPTIONS", CHAT, b"", **ASKS)
        answer = await request(running.port, "POST", CHAT, chat_body(), origin=PAGE)
    assert (preflight.status, preflight.headers["allow"]) == (204, "POST, OPTIONS")
    assert [cors_of(preflight), cors_of(answer)] == [{}, {}]


async def test_a_star_lets_every_page_read(serve: Serve) -> None:
    async with serve(MOCK, cors_origins=("*",)) as running:
        answer = await request(running.port, "POST", CHAT, chat_body(), origin="null")
        preflight = await request(running.port, "OPTIONS", CHAT, b"", **ASKS)
    assert cors_of(answer) == {"allow-origin": "*"}
    assert cors_of(preflight)["allow-origin"] == "*"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("OPTIONS", "/healthz", "GET, HEAD, OPTIONS"),
        ("OPTIONS", "/v1/models", "GET, HEAD, OPTIONS"),
        ("OPTIONS", "/v1/responses/resp_1", "GET, DELETE, HEAD, OPTIONS"),
        ("OPTIONS", "/v1beta/models/m:generateContent", "POST, OPTIONS"),
    ],
)
async def test_options_says_what_a_path_takes(
    serve: Serve, method: str, path: str, allow: str
) -> None:
    async with serve(MOCK) as running:
        answer = await request(running.port, method, path)
    assert (answer.status, answer.headers["allow"]) == (204, allow)


async def test_options_of_no_path_is_404(serve: Serve) -> None:
    async with serve(MOCK) as running:
        answer = await request(running.port, "OPTIONS", "/nothing")
    assert answer.status == 404
    assert answer.json["error"]["message"] == "there is no /nothing here"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/v1/models/m"])
async def test_head_is_get_without_its_body(serve: Serve, path: str) -> None:
    async with serve(MOCK) as running:
        got = await request(running.port, "GET", path)
        seen = await request(running.port, "HEAD", path)
    assert (seen.status, seen.body) == (got.status, b"")
    assert seen.headers["content-length"] == str(len(got.body))


async def test_a_connection_is_kept_behind_head_and_options(serve: Serve) -> None:
    async with (
        serve(MOCK) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as stream,
    ):
        client = Client(stream)
        ask = get("/healthz")
        await client.send(ask.replace(b"GET", b"HEAD", 1))
        assert (await client.answer(bodiless=True)).status == 200
        await client.send(ask.replace(b"GET", b"OPTIONS", 1))
        assert (await client.answer(bodiless=True)).status == 204
        await client.send(ask)
        assert (await client.answer()).json == {"status": "alive"}


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("OPTIONS", 204)])
async def test_http2_has_the_same(serve: Serve, method: str, status: int) -> None:
    connection = H2Connection(H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    fields = {":method": method, ":path": "/healthz"}
    fields |= {":scheme": "http", ":authority": "x", "origin": PAGE}
    connection.send_headers(1, list(fields.items()), end_stream=True)
    found: dict[str, str] = {}
    ended = False
    async with (
        serve(MOCK, cors_origins=(PAGE,)) as running,
        await trio.open_tcp_stream("127.0.0.1", running.port) as stream,
    ):
        await stream.send_all(connection.data_to_send())
        while not ended:
            for event in connection.receive_data(await received(stream)):
                assert getattr(event, "data", b"") == b""
                if isinstance(event, ResponseReceived):
                    found.update(event.headers)  # type: ignore[arg-type] # as set
                ended = ended or isinstance(event, StreamEnded)
    assert found[":status"] == str(status)
    assert found["access-control-allow-origin"] == PAGE


# --- decisions without a socket -------------------------------------------------


@pytest.mark.parametrize(
    "names", ["a b", "x\r\ny: z", "a,,b", "a,", "x" * 3000, "", "ä"]
)
def test_what_is_no_list_of_names_is_not_repeated(names: str) -> None:
    asked = {**ASKS, "access-control-request-headers": names}
    fields = dict(Cors([PAGE]).preflight(asked, b"POST"))
    assert b"access-control-allow-headers" not in fields
    assert fields[b"access-control-allow-methods"] == b"POST"


def test_an_options_that_is_no_preflight_gets_no_permissions() -> None:
    assert Cors([PAGE]).preflight({"origin": PAGE}, b"POST") == ()


def test_every_documented_header_can_be_read_by_a_page() -> None:
    page = Path("docs/reference/http-api.md").read_text(encoding="utf-8")
    table = page.partition("## Headers of an answer")[2].partition("## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row[:60])}
    assert named - {"true", "false"} <= set(OWN_HEADERS)
    assert len(named) > 5


@pytest.mark.parametrize(
    "origin", ["app.example", "https://app.example/", "https://App.example", "", "*.x"]
)
async def test_what_is_no_origin_is_refused(origin: str) -> None:
    async with Cluster.connect("inproc://x") as cluster:
        with pytest.raises(ConfigError, match="is not an origin such as"):
            await cluster.serve("127.0.0.1:0", cors_origins=(origin,))
