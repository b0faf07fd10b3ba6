"""Where an answer comes from, in each dialect; where it has no place, it is told.

By Google's and OpenAI's own libraries, where a citation is shown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from google import genai
from openai import AsyncOpenAI

from atomr_infer.testing.upstream_script import RawAnswer
from tests.gateway.dialects import ROUTES, provider
from tests.gateway.http import Answer, parse

if TYPE_CHECKING:
    from tests.gateway.conftest import Running, Serve

pytestmark = pytest.mark.filterwarnings(
    "ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning"
)

# Two words of six bytes and three characters each, and a space.
TEXT = "äöü éèê"
BOOK, PAGE = "https://book.example", "https://page.example"

CITED = {"citationSources": [{"startIndex": 0, "endIndex": 6, "uri": BOOK}]}
GROUNDED = {
    "groundingChunks": [{"web": {"uri": PAGE, "title": "A page"}}],
    "groundingSupports": [
        {"segment": {"startIndex": 7, "endIndex": 13}, "groundingChunkIndices": [0]}
    ],
}
FIRST, SECOND = (
    {"start_index": 0, "end_index": 3, "title": "", "url": BOOK},
    {"start_index": 4, "end_index": 7, "title": "A page", "url": PAGE},
)
NESTED = [{"type": "url_citation", "url_citation": each} for each in (FIRST, SECOND)]
FLAT = [{"type": "url_citation", **each} for each in (FIRST, SECOND)]

USED = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}


def candidate(text: str, **more: Any) -> dict[str, Any]:
    return {"content": {"role": "model", "parts": [{"text": text}]}, **more}


def gemini(*, stream: bool) -> RawAnswer:
    """An answer that cites; in a stream, the first piece says half of it."""
    told = {"citationMetadata": CITED, "groundingMetadata": GROUNDED}
    if not stream:
        whole = candidate(TEXT, finishReason="STOP", **told)
        body = json.dumps({"candidates": [whole], "usageMetadata": USED})
        return RawAnswer(content_type="application/json", body=body.encode())
    pieces = [
        {"candidates": [candidate(TEXT[:4], citationMetadata=CITED)]},
        {"candidates": [candidate(TEXT[4:])]},
        {
            "candidates": [candidate("", finishReason="STOP", **told)],
            "usageMetadata": USED,
        },
    ]
    lines = b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in pieces)
    return RawAnswer(content_type="text/event-stream", body=lines)


def openai(*, stream: bool) -> RawAnswer:
    """What a model that searches answers: the citations come with the last words."""
    message = {"role": "assistant", "content": TEXT, "annotations": NESTED}
    choice = {"index": 0, "finish_reason": "stop"}
    if not stream:
        body = json.dumps({"choices": [{**choice, "message": message}], "id": "c"})
        return RawAnswer(content_type="application/json", body=body.encode())
    lines = b"".join(
        b"data: %b\n\n" % json.dumps({"id": "c", "choices": [each]}).encode()
        for each in (
            {"index": 0, "delta": {"role": "assistant", "annotations": []}},
            {"index": 0, "delta": {"content": TEXT}},
            {"index": 0, "delta": {"annotations": NESTED}},
            {**choice, "delta": {}},
        )
    )
    return RawAnswer(content_type="text/event-stream", body=lines + b"data: [DONE]\n\n")


UPSTREAMS = {"gemini": gemini, "openai": openai}
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@STREAM
async def test_a_chat_has_geminis_citations_as_annotations(
    serve: Serve, stream: bool
) -> None:
    async with (
        provider("gemini", gemini(stream=stream)) as (_, deployment),
        serve(deployment) as running,
        AsyncOpenAI(base_url=f"{running.url}/v1", api_key="k") as client,
    ):
        asked: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        if stream:
            found: list[Any] = []
            async for chunk in await client.chat.completions.create(
                **asked, stream=True
            ):
                found += getattr(chunk.choices[0].delta, "annotations", None) or []
        else:
            answer = await client.chat.completions.create(**asked)
            message = answer.choices[0].message
            assert message.content == TEXT
            found = [each.model_dump() for each in message.annotations or ()]
    assert found == NESTED


@STREAM
@pytest.mark.parametrize("over", ["gemini", "openai"])
async def test_a_response_has_citations_as_annotations(
    serve: Serve, over: str, stream: bool
) -> None:
    async with (
        provider(
            over,
            UPSTREAMS[over](stream=stream),
            options={"responses": False} if over == "openai" else None,
        ) as (_, deployment),
        serve(deployment) as running,
        AsyncOpenAI(base_url=f"{running.url}/v1", api_key="k") as client,
    ):
        added: list[Any] = []
        if stream:
            async with client.responses.stream(model="m", input="hi") as events:
                async for event in events:
                    if event.type == "response.output_text.annotation.added":
                        said: Any = event.annotation
                        added.append(said.model_dump())
                answer: Any = await events.get_final_response()
        else:
            answer = await client.responses.create(model="m", input="hi")
    [content] = answer.output[0].content
    assert content.text == TEXT
    assert [each.model_dump() for each in content.annotations] == FLAT
    assert added == (FLAT if stream else [])


@STREAM
async def test_gemini_has_annotations_as_citations(serve: Serve, stream: bool) -> None:
    async with (
        provider("openai", openai(stream=stream)) as (_, deployment),
        serve(deployment) as running,
    ):
        options = genai.types.HttpOptions(base_url=running.url)
        client = genai.Client(api_key="k", http_options=options)

        def ask() -> Any:
            if not stream:
                return client.models.generate_content(model="m", contents="hi")
            asked = client.models.generate_content_stream(model="m", contents="hi")
            *_, last = asked
            return last

        answer = await trio.to_thread.run_sync(ask)
        client.close()
    cited = answer.candidates[0].citation_metadata.citations
    assert [(each.start_index, each.end_index, each.uri) for each in cited] == [
        (0, 6, BOOK),
        (7, 13, PAGE),
    ]


LEFT_OUT = "left out of the answer: citations"


async def ask(running: Running, name: str, *, stream: bool) -> Answer:
    connection = await trio.open_tcp_stream("127.0.0.1", running.port)
    async with connection:
        request = ROUTES[name].request("connection: close", stream=stream)
        await connection.send_all(request)
        return parse(b"".join([piece async for piece in connection]))


@STREAM
@pytest.mark.parametrize("over", ["gemini", "openai"])
async def test_what_has_no_place_for_them_says_so(
    serve: Serve, over: str, stream: bool
) -> None:
    async with (
        provider(over, UPSTREAMS[over](stream=stream)) as (_, deployment),
        serve(deployment) as running,
    ):
        answer = await ask(running, "messages", stream=stream)
    assert answer.status == 200
    assert BOOK.encode() not in answer.body
    if stream:
        told = f"\n\n: x-atomr-warnings: {LEFT_OUT}\n\n"
        assert answer.body.endswith(told.encode())
        assert "x-atomr-warnings" not in answer.headers
    else:
        assert answer.headers["x-atomr-warnings"] == LEFT_OUT


@STREAM
async def test_an_answer_without_any_says_nothing(serve: Serve, stream: bool) -> None:
    body = openai(stream=stream).body.replace(json.dumps(NESTED).encode(), b"[]")
    kind = "text/event-stream" if stream else "application/json"
    async with (
        provider("openai", RawAnswer(content_type=kind, body=body)) as (_, deployment),
        serve(deployment) as running,
    ):
        answer = await ask(running, "messages", stream=stream)
    assert answer.status == 200
    assert "x-atomr-warnings" not in answer.headers
    assert b"x-atomr-warnings" not in answer.body


async def test_a_streamed_response_has_those_that_come_behind_a_call(
    serve: Serve,
) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}
    deltas = (
        {"role": "assistant", "content": TEXT},
        {"tool_calls": [{**call, "type": "function"}]},
        {"annotations": NESTED},
    )
    choices: list[dict[str, Any]] = [{"index": 0, "delta": each} for each in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
    lines = b"".join(
        b"data: %b\n\n" % json.dumps({"id": "c", "choices": [each]}).encode()
        for each in choices
    )
    body = lines + b"data: [DONE]\n\n"
    raw = RawAnswer(content_type="text/event-stream", body=body)
    async with (
        provider("openai", raw) as (_, deployment),
        serve(deployment) as running,
    ):
        answer = await ask(running, "responses", stream=True)
    events = answer.body.decode().split("\n\n")
    (last,) = [e for e in events if e.startswith("event: response.completed")]
    whole = json.loads(last.partition("data: ")[2])["response"]
    said, called = whole["output"]
    assert said["content"][0]["annotations"] == FLAT
    assert called["name"] == "f"
