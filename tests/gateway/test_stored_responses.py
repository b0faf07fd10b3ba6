"""Going on from a response by ``previous_response_id``, with OpenAI's own library."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from atomr_infer.testing.upstream import FakeUpstream, open_anthropic_upstream
from atomr_infer.testing.upstream_script import Happy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings(
    "ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning"
)


@asynccontextmanager
async def serving(
    *keys: str, store: Path | None = None
) -> AsyncIterator[tuple[str, FakeUpstream]]:
    async with (
        open_anthropic_upstream([Happy(text="Ann."), Happy(text="You are Ann.")]) as up,
        Cluster.connect("inproc://stored") as cluster,
    ):
        deployment = Deployment(
            name="m",
            runtime="anthropic",
            model="claude-sonnet-4-5",
            credential=Secret("a-key-of-ours"),
            options={"endpoint": up.base_url},
        )
        await cluster.deploy(deployment)
        gateway = await cluster.serve(
            "127.0.0.1:0", keys=[Secret(key) for key in keys], response_store=store
        )
        yield f"{gateway.url}/v1", up


def client(url: str, key: str = "k") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=20)


async def respond(asker: AsyncOpenAI, *, streamed: bool, **given: Any) -> Any:
    if not streamed:
        return await asker.responses.create(model="m", **given)
    async with asker.responses.stream(model="m", **given) as stream:
        async for _ in stream:
            pass
        return await stream.get_final_response()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_conversation_goes_on_where_it_was(streamed: bool) -> None:
    async with serving() as (url, upstream), client(url) as asker:
        first = await respond(
            asker, streamed=streamed, input="I am?", instructions="Guess."
        )
        second = await respond(
            asker,
            streamed=streamed,
            input="Who am I?",
            previous_response_id=first.id,
        )
        sent = upstream.requests[1].json
    assert second.output_text == "You are Ann."
    assert second.previous_response_id == first.id
    assert [(m["role"], _text(m["content"])) for m in sent["messages"]] == [
        ("user", "I am?"),
        ("assistant", "Ann."),
        ("user", "Who am I?"),
    ]
    assert "system" not in sent, "instructions are of one response alone"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content)


async def test_what_is_not_stored_cannot_be_gone_on_from() -> None:
    async with serving() as (url, upstream), client(url) as asker:
        first = await asker.responses.create(model="m", input="I am?", store=False)
        with pytest.raises(openai.BadRequestError) as raised:
            await asker.responses.create(
                model="m", input="Who am I?", previous_response_id=first.id
            )
        assert len(upstream.requests) == 1
    assert raised.value.code == "previous_response_not_found"
    assert raised.value.param == "previous_response_id"


async def test_a_stored_response_is_shown_and_forgotten() -> None:
    async with serving() as (url, _), client(url) as asker:
        first = await asker.responses.create(model="m", input="I am?")
        shown = await asker.responses.retrieve(first.id)
        assert shown == first
        await asker.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await asker.responses.retrieve(first.id)


async def test_nobody_goes_on_from_anothers_response() -> None:
    async with serving("ann-key", "bob-key") as (url, _):
        async with client(url, "ann-key") as ann:
            first = await ann.responses.create(model="m", input="I am?")
        async with client(url, "bob-key") as bob:
            with pytest.raises(openai.NotFoundError):
                await bob.responses.retrieve(first.id)
            with pytest.raises(openai.BadRequestError):
                await bob.responses.create(
                    model="m", input="Who?", previous_response_id=first.id
                )


async def test_a_file_keeps_responses_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "responses.db"
    async with serving(store=path) as (url, _), client(url) as asker:
        first = await asker.responses.create(model="m", input="I am?")
    async with serving(store=path) as (url, upstream), client(url) as asker:
        await asker.responses.create(
            model="m", input="Who am I?", previous_response_id=first.id
        )
        assert len(upstream.requests[0].json["messages"]) == 3


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A store whose table somebody takes away while it is open."""
    return tmp_path / "responses.db"


def take_away(store: Path) -> None:
    with sqlite3.connect(store) as database:
        database.execute("DROP TABLE response")
        database.execute("DROP TABLE upstream_name")
    database.close()


async def test_a_store_that_cannot_be_read_is_told_and_logged_once(
    broken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(store=broken) as (url, upstream), client(url) as asker:
        first = await asker.responses.create(model="m", input="I am?")
        take_away(broken)
        for ask in (
            partial(asker.responses.retrieve, first.id),
            partial(asker.responses.delete, first.id),
            partial(
                asker.responses.create,
                model="m",
                input="Who?",
                previous_response_id=first.id,
            ),
        ):
            caplog.clear()
            with pytest.raises(openai.InternalServerError) as raised:
                await ask()
            assert raised.value.status_code == 503
            assert raised.value.code == "response_store_unavailable"
            assert "store of responses cannot be read" in raised.value.message
            said = [r.message for r in caplog.records if r.levelname == "ERROR"]
            assert said == [
                f"the response store {broken} cannot be read: no such table: response"
            ]
        assert len(upstream.requests) == 1


async def test_a_store_that_cannot_be_read_lets_no_stranger_in(
    broken: Path,
) -> None:
    async with serving("ann-key", store=broken) as (url, upstream):
        async with client(url, "ann-key") as ann:
            take_away(broken)
            picture: Any = {"type": "image_generation_call", "id": "ig_1"}
            with pytest.raises(openai.InternalServerError):
                await ann.responses.create(model="m", input=[picture])
        assert upstream.requests == []
