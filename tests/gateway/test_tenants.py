"""Several clients behind one account: nobody reads what was made for another."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from atomr_infer.model.secret import HeaderSecret, Secret
from atomr_infer.testing.upstream_script import Happy
from tests.gateway.dialects import provider
from tests.gateway.http import Answer, events, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from atomr_infer.testing.upstream import FakeUpstream
    from tests.gateway.conftest import Serve

ANN, BOB = "ann-opens-with-this", "bob-opens-with-this"


@asynccontextmanager
async def shared(
    serve: Serve,
    name: str = "openai",
    *,
    keys: tuple[str, ...] = (ANN, BOB),
    store: Path | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[int, FakeUpstream]]:
    """A gateway with two keys in front of one account."""
    if name == "openai":
        settings["options"] = {"responses": True}
    async with (
        provider(name, Happy(), Happy(), Happy(), **settings) as (upstream, deployment),
        serve(
            deployment, keys=[Secret(key) for key in keys], response_store=store
        ) as running,
    ):
        yield running.port, upstream


async def respond(
    port: int, key: str | None, path: str = "/v1/responses", **members: Any
) -> Answer:
    if path == "/v1/responses":
        members = {"model": "m", "input": "hi", **members}
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return await request(port, "POST", path, json.dumps(members).encode(), **headers)


async def first_response(port: int, key: str, *, stream: bool = False) -> str:
    answer = await respond(port, key, stream=stream)
    if not stream:
        return str(answer.json["id"])
    last = json.loads(events(answer)[-1].rpartition("data: ")[2])
    return str(last["response"]["id"])


@pytest.mark.parametrize("stream", [False, True])
async def test_the_owner_goes_on_from_a_response_that_was_passed_on(
    serve: Serve, stream: bool
) -> None:
    async with shared(serve) as (port, upstream):
        first = await first_response(port, ANN, stream=stream)
        answer = await respond(port, ANN, previous_response_id=first)
    assert answer.status == 200
    assert upstream.requests[1].json["previous_response_id"] == first


@pytest.mark.parametrize("stream", [False, True])
async def test_nobody_goes_on_from_anothers_response_that_was_passed_on(
    serve: Serve, stream: bool
) -> None:
    async with shared(serve) as (port, upstream):
        first = await first_response(port, ANN, stream=stream)
        answer = await respond(port, BOB, previous_response_id=first)
        never = await respond(port, BOB, previous_response_id="resp_never_seen")
    assert len(upstream.requests) == 1
    assert answer.status == 400, "as OpenAI says it"
    assert answer.json["error"] == {
        "message": f"Previous response with id '{first}' not found.",
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }
    assert never.status == 400
    assert {**never.json["error"], "message": ""} == {
        **answer.json["error"],
        "message": "",
    }, "who asks cannot tell another's from what does not exist"


async def test_a_second_member_of_the_name_is_looked_at_too(serve: Serve) -> None:
    async with shared(serve) as (port, upstream):
        anns = await first_response(port, ANN)
        twice = (
            f'{{"model":"m","input":"hi","previous_response_id":"{anns}",'
            f'"previous_response_id":null}}'
        ).encode()
        authorization = f"Bearer {BOB}"
        answer = await request(
            port, "POST", "/v1/responses", twice, authorization=authorization
        )
    assert answer.status == 400
    assert len(upstream.requests) == 1


async def test_what_was_passed_on_is_remembered_over_a_restart(
    serve: Serve, tmp_path: Path
) -> None:
    store = tmp_path / "responses.db"
    async with shared(serve, store=store) as (port, _):
        first = await first_response(port, ANN)
    async with shared(serve, store=store) as (port, upstream):
        answer = await respond(port, ANN, previous_response_id=first)
    assert answer.status == 200
    assert len(upstream.requests) == 1


async def test_without_keys_there_is_nobody_to_tell_apart(serve: Serve) -> None:
    async with shared(serve, keys=()) as (port, upstream):
        first = await first_response(port, ANN)
        assert (await respond(port, None, previous_response_id=first)).status == 200
        unknown = await respond(port, None, previous_response_id="resp_other")
    assert unknown.status == 400
    assert len(upstream.requests) == 3, "the upstream says what it does not have"


async def test_a_client_with_its_own_upstream_key_names_its_own(serve: Serve) -> None:
    async with (
        provider("openai", Happy(), options={"responses": True}) as (
            upstream,
            deployment,
        ),
        serve(
            attrs.evolve(deployment, credential=HeaderSecret("x-own-key")),
            keys=[Secret(ANN), Secret(BOB)],
        ) as running,
    ):
        body = {"model": "m", "input": "hi", "previous_response_id": "resp_other"}
        answer = await request(
            running.port,
            "POST",
            "/v1/responses",
            json.dumps(body).encode(),
            authorization=f"Bearer {BOB}",
            x_own_key="theirs",
        )
    assert answer.json["error"]["code"] == "previous_response_not_found"
    assert len(upstream.requests) == 1, "its own account decides"


_FILE = {"type": "file", "file": {"file_id": "file-1"}}
_SAID = [{"role": "user", "content": [_FILE]}]
_BLOCK = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
_FILE_URI = {
    "fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x"}
}
_HI = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


@pytest.mark.parametrize(
    ("name", "path", "members", "param"),
    [
        (
            "openai",
            "/v1/chat/completions",
            {"model": "m", "messages": _SAID},
            "messages[0].content[0].file.file_id",
        ),
        (
            "openai",
            "/v1/responses",
            {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
            "tools[0].vector_store_ids[0]",
        ),
        (
            "anthropic",
            "/v1/messages",
            {
                "model": "m",
                "max_tokens": 5,
                "messages": [{"role": "user", "content": [_BLOCK]}],
            },
            "messages[0].content[0].source.file_id",
        ),
        (
            "anthropic",
            "/v1/messages/count_tokens",
            {"model": "m", "messages": [{"role": "user", "content": [_BLOCK]}]},
            "messages[0].content[0].source.file_id",
        ),
        (
            "gemini",
            "/v1beta/models/m:generateContent",
            {**_HI, "cached_content": "cachedContents/1"},
            "cached_content",
        ),
        (
            "gemini",
            "/v1beta/models/m:countTokens",
            {"contents": [{"role": "user", "parts": [_FILE_URI]}]},
            "contents[0].parts[0].fileData.fileUri",
        ),
    ],
)
async def test_what_nobody_saw_made_is_nobodys(
    serve: Serve, name: str, path: str, members: dict[str, Any], param: str
) -> None:
    async with shared(serve, name) as (port, upstream):
        answer = await respond(port, BOB, path, **members)
    assert (answer.status, upstream.requests) == (404, [])
    assert param in answer.json["error"]["message"]


async def test_an_operator_may_let_all_share_what_the_account_keeps(
    serve: Serve,
) -> None:
    tool = {"type": "file_search", "vector_store_ids": ["vs_1"]}
    async with (
        provider("openai", Happy(), options={"responses": True}) as (up, deployment),
        serve(deployment, keys=[Secret(BOB)], shared_references=True) as running,
    ):
        await respond(running.port, BOB, tools=[tool])
    assert up.requests[0].json["tools"] == [tool]
