"""What a prompt names by URL is counted as it would be answered: fetched."""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.remote import media
from atomr_infer.testing.upstream_script import Happy
from tests.gateway.dialects import COUNT_CONTENT, COUNT_MESSAGES, provider
from tests.gateway.http import request
from tests.remote.test_media import PNG, answer, anywhere, serving

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve


def count_of(route: str, url: str) -> tuple[str, dict[str, Any]]:
    if route == "countTokens":
        part = {"fileData": {"mimeType": "image/png", "fileUri": url}}
        return COUNT_CONTENT.path, {"contents": [{"role": "user", "parts": [part]}]}
    block = {"type": "image", "source": {"type": "url", "url": url}}
    said = [{"role": "user", "content": [block]}]
    return COUNT_MESSAGES.path, {**COUNT_MESSAGES.members, "messages": said}


@pytest.mark.parametrize("route", ["countTokens", "count_tokens"])
async def test_what_its_model_does_not_fetch_is_fetched_to_be_counted(
    serve: Serve, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A picture on loopback, which is never fetched otherwise.
    allowed = partial(media.fetch_media, check=anywhere)
    monkeypatch.setattr(media, "fetch_media", allowed)
    async with (
        serving({"/a": answer(200, PNG)}) as (url, asked),
        provider("gemini", Happy()) as (upstream, deployment),
        serve(deployment) as running,
    ):
        path, members = count_of(route, f"{url}/a")
        found = await request(running.port, "POST", path, json.dumps(members).encode())
    assert (found.status, asked) == (200, ["/a"])
    (recorded,) = upstream.requests
    assert recorded.path.endswith(":countTokens")
    assert base64.b64encode(PNG).decode() in recorded.body.decode()


@pytest.mark.parametrize("route", ["countTokens", "count_tokens"])
async def test_what_may_not_be_fetched_is_the_clients_fault_and_no_upstreams(
    serve: Serve, route: str
) -> None:
    async with (
        serving({}) as (url, asked),
        provider("gemini", Happy()) as (upstream, deployment),
        serve(deployment) as running,
    ):
        path, members = count_of(route, f"{url}/a")
        found = await request(running.port, "POST", path, json.dumps(members).encode())
    assert (found.status, asked, upstream.requests) == (400, [], [])
    assert "not public" in found.json["error"]["message"]
