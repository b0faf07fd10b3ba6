"""Bodies that are folded, broken, of another kind or not text, in each dialect."""

from __future__ import annotations

import gzip
import json
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.cluster import Cluster
from atomr_infer.gateway.exchanges.body_coding import (
    BadCodingError,
    UnfoldsTooFarError,
    UnknownCodingError,
    decoded,
)
from atomr_infer.model.deployment import Deployment
from tests.gateway.http import Answer, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
BODY = json.dumps(ASK).encode()
ROUTES = {
    "openai": "/v1/chat/completions",
    "responses": "/v1/responses",
    "embeddings": "/v1/embeddings",
    "rerank": "/v1/rerank",
    "anthropic": "/v1/messages",
    "count": "/v1/messages/count_tokens",
    "gemini": "/v1beta/models/m:generateContent",
}


@asynccontextmanager
async def serving(max_body_bytes: int = 10_000) -> AsyncIterator[int]:
    async with Cluster.connect("inproc://bodies") as cluster:
        await cluster.deploy(Deployment(name="m", runtime="mock"))
        gateway = await cluster.serve("127.0.0.1:0", max_body_bytes=max_body_bytes)
        yield int(gateway.url.rpartition(":")[2])


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("X-Gzip", gzip.compress(BODY, mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("identity", BODY),
    ],
)
async def test_a_folded_body_is_unfolded(coding: str, body: bytes) -> None:
    async with serving() as port:
        answer = await request(
            port, "POST", ROUTES["openai"], body, **{"content-encoding": coding}
        )
    assert answer.status == 200


BAD: list[Any] = [
    pytest.param({"content-encoding": "br"}, BODY, 415, id="unknown encoding"),
    pytest.param({"content-encoding": "gzip"}, BODY, 400, id="not folded"),
    pytest.param(
        {"content-encoding": "gzip"},
        gzip.compress(BODY, mtime=0)[:-4],
        400,
        id="cut off",
    ),
    pytest.param(
        {"content-encoding": "gzip"},
        gzip.compress(b" " * 10_000_000, mtime=0),
        413,
        id="unfolds too far",
    ),
    pytest.param({"content-type": "text/xml"}, b"<a/>", 415, id="xml"),
    pytest.param(
        {"content-type": "multipart/form-data; boundary=x"}, b"--x", 415, id="a form"
    ),
    pytest.param(
        {"content-type": "application/x-www-form-urlencoded"}, b"a=b", 415, id="a query"
    ),
    pytest.param({}, b"", 400, id="nothing"),
    pytest.param({}, b"{", 400, id="no JSON"),
    pytest.param({}, b'{"a": "\xff\xfe"}', 400, id="not UTF-8"),
    pytest.param({}, b"[]", 400, id="a list"),
    pytest.param({}, b'"x"', 400, id="a string"),
    pytest.param({}, b'{"a":' * 1500, 400, id="nested too deeply"),
    pytest.param({}, b"x" * 10_001, 413, id="too large"),
    pytest.param({}, b"{}", 400, id="without members"),
    pytest.param({}, b'{"model": 5, "contents": 5, "input": 5}', 400, id="wrong types"),
]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("headers", "body", "status"), BAD)
async def test_a_bad_body_is_refused_in_its_routes_dialect(
    route: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    async with serving() as port:
        answer = await request(port, "POST", ROUTES[route], body, **headers)
    assert answer.status == status
    assert_error(route, answer)


async def test_json_is_taken_under_the_media_types_that_curl_gives_it() -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    async with serving() as port:
        answer = await request(port, "POST", ROUTES["openai"], BODY, **form)
    assert answer.status == 200


def assert_error(route: str, answer: Answer) -> None:
    found = json.loads(answer.body)
    error = found["error"]
    assert "Traceback" not in error["message"]
    if route in ("anthropic", "count"):
        assert found["type"] == "error"
        assert set(error) == {"type", "message"}
    elif route == "gemini":
        assert error["code"] == answer.status
        assert error["status"]
    else:
        assert set(error) == {"message", "type", "param", "code"}


def test_unfolding_is_bounded() -> None:
    bomb = gzip.compress(b"x" * 1_000_000, mtime=0)
    with pytest.raises(UnfoldsTooFarError):
        decoded(bomb, "gzip", limit_bytes=999_999)
    assert len(decoded(bomb, "gzip", limit_bytes=1_000_000)) == 1_000_000
    with pytest.raises(BadCodingError, match="one whole"):
        decoded(bomb + b"more", "gzip", limit_bytes=2_000_000)
    with pytest.raises(UnknownCodingError, match="'zstd'"):
        decoded(b"", "zstd", limit_bytes=1)
