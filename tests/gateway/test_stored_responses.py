"""Going on from a response by ``previous_response_id``, with OpenAI's own library."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import TYPE_CHECKING, Any

import openai
import pytest
import trio
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


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if r.levelname in {"WARNING", "ERROR"}]


def gone(path: Path, what: str) -> str:
    return (
        f"the response store {path} cannot be {what}: no such table: response; it is "
        "damaged, or no such database; move it away and a new one is made"
    )


async def test_a_store_that_cannot_be_used_is_told_each_time_and_logged_once(
    broken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(store=broken) as (url, upstream), client(url) as asker:
        first = await asker.responses.create(model="m", input="I am?")
        take_away(broken)
        caplog.clear()
        for ask in (
            partial(asker.responses.retrieve, first.id),
            partial(asker.responses.retrieve, first.id),
            partial(asker.responses.delete, first.id),
            partial(
                asker.responses.create,
                model="m",
                input="Who?",
                previous_response_id=first.id,
            ),
        ):
            with pytest.raises(openai.InternalServerError) as raised:
                await ask()
            assert raised.value.status_code == 503
            assert raised.value.code == "response_store_unavailable"
            assert "store of responses cannot be used now" in raised.value.message
        assert said(caplog) == [gone(broken, "read"), gone(broken, "written")]
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_response_that_is_not_stored_says_so_and_is_an_answer(
    broken: Path, caplog: pytest.LogCaptureFixture, streamed: bool
) -> None:
    async with serving(store=broken) as (url, _), client(url) as asker:
        take_away(broken)
        caplog.clear()
        for text in ("Ann.", "You are Ann."):
            answer = await respond(asker, streamed=streamed, input="I am?")
            assert (answer.output_text, answer.store) == (text, False)
        assert said(caplog) == [gone(broken, "written")]


NOT_STORED = "this response was not stored: the gateway's store cannot be written"


async def test_a_response_that_is_not_stored_has_a_warning(broken: Path) -> None:
    async with serving(store=broken) as (url, _), client(url) as asker:
        take_away(broken)
        whole = await asker.responses.with_raw_response.create(model="m", input="I?")
        async with asker.responses.with_streaming_response.create(
            model="m", input="I am?", stream=True
        ) as stream:
            lines = [line async for line in stream.iter_lines()]
    assert whole.headers["x-atomr-warnings"] == NOT_STORED
    assert "x-atomr-warnings" not in stream.headers
    assert [line for line in lines if line.startswith(":")] == [
        f": x-atomr-warnings: {NOT_STORED}"
    ]


async def test_a_store_that_another_process_holds_delays_nobody_for_long(
    broken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(store=broken) as (url, _), client(url) as asker:
        with closing(sqlite3.connect(broken)) as other:
            other.execute("BEGIN IMMEDIATE")
            with trio.fail_after(20):  # each would wait five seconds by default
                for _ in range(8):
                    answer = await respond(asker, streamed=False, input="I am?")
                    assert answer.store is False
            other.rollback()
        kept = await asker.responses.create(model="m", input="I am?")
        assert await asker.responses.retrieve(kept.id) == kept
    locked = (
        f"the response store {broken} cannot be written: database is locked; another "
        "process has locked it; end that one, or name another file"
    )
    assert said(caplog) == [locked, f"works again: {locked}"]


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
