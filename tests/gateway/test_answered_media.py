"""Sound and other media of Gemini's own, in each dialect; what has no place is told."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer.model.batch import TokenChunk
from atomr_infer.model.dialect import Dialect
from atomr_infer.testing.upstream_script import RawAnswer
from atomr_infer.wire.gemini.answer import _Choice
from atomr_infer.wire.gemini.upstream_parts import Part, PartReader, _Blob
from atomr_infer.wire.unshown import unshown
from tests.gateway.dialects import ROUTES, provider
from tests.gateway.http import Answer, parse

if TYPE_CHECKING:
    from tests.gateway.conftest import Serve

STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
USED = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}
KIND = "audio/L16;codec=pcm;rate=24000"


def sound(text: bytes) -> dict[str, Any]:
    data = base64.b64encode(text).decode()
    return {"inlineData": {"mimeType": KIND, "data": data}}


FILM = {"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}


def gemini(*parts: dict[str, Any], stream: bool) -> RawAnswer:
    """An answer of some parts; in a stream, each in a piece of its own."""
    if not stream:
        candidate = {"content": {"role": "model", "parts": parts}}
        whole = {"candidates": [{**candidate, "finishReason": "STOP"}]}
        body = json.dumps({**whole, "usageMetadata": USED}).encode()
        return RawAnswer(content_type="application/json", body=body)
    pieces: list[dict[str, Any]] = [
        {"candidates": [{"content": {"role": "model", "parts": [part]}}]}
        for part in parts
    ]
    end = {"content": {"role": "model", "parts": []}, "finishReason": "STOP"}
    pieces.append({"candidates": [end], "usageMetadata": USED})
    lines = b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in pieces)
    return RawAnswer(content_type="text/event-stream", body=lines)


def chat_deltas(body: bytes) -> list[dict[str, Any]]:
    lines = body.decode().split("\n")
    data = [line[6:] for line in lines if line.startswith("data: {")]
    events = [json.loads(each) for each in data]
    return [event["choices"][0]["delta"] for event in events if event["choices"]]


async def asked(
    serve: Serve, name: str, *parts: dict[str, Any], stream: bool
) -> Answer:
    """What a client of a dialect gets of Gemini's answer."""
    async with (
        provider("gemini", gemini(*parts, stream=stream)) as (_, deployment),
        serve(deployment) as running,
    ):
        connection = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with connection:
            request = ROUTES[name].request("connection: close", stream=stream)
            await connection.send_all(request)
            answer = parse(b"".join([piece async for piece in connection]))
    assert answer.status == 200
    return answer


def told(answer: Answer) -> str:
    """What is said of what is left out."""
    if "x-atomr-warnings" in answer.headers:
        return answer.headers["x-atomr-warnings"]
    return answer.body.decode().partition(": x-atomr-warnings: ")[2].strip()


async def test_a_chat_has_geminis_sound_whole(serve: Serve) -> None:
    answer = await asked(serve, "chat", sound(b"ab"), sound(b"cd"), stream=False)
    audio = answer.json["choices"][0]["message"]["audio"]
    assert base64.b64decode(audio["data"]) == b"abcd"
    assert (audio["mime_type"], audio["transcript"]) == (KIND, "")
    assert told(answer) == ""


async def test_a_streamed_chat_has_it_piece_by_piece(serve: Serve) -> None:
    answer = await asked(serve, "chat", sound(b"ab"), sound(b"cd"), stream=True)
    deltas = chat_deltas(answer.body)
    pieces = [delta["audio"]["data"] for delta in deltas if "audio" in delta]
    assert [base64.b64decode(piece) for piece in pieces] == [b"ab", b"cd"]
    assert told(answer) == ""


@STREAM
@pytest.mark.parametrize("name", ["responses", "messages"])
async def test_what_has_no_place_for_sound_says_so(
    serve: Serve, name: str, stream: bool
) -> None:
    parts = ({"text": "la"}, sound(b"ab"))
    answer = await asked(serve, name, *parts, stream=stream)
    assert told(answer) == "left out of the answer: sound"


@STREAM
async def test_a_chat_says_that_a_film_is_left_out(serve: Serve, stream: bool) -> None:
    answer = await asked(serve, "chat", {"text": "la"}, FILM, stream=stream)
    assert told(answer) == "left out of the answer: other media"
    assert b"video/mp4" not in answer.body


async def test_two_pictures_are_two(serve: Serve) -> None:
    pictures = [
        {"inlineData": {"mimeType": "image/png", "data": data}}
        for data in ("AAAA", "BBBB")
    ]
    answer = await asked(serve, "chat", *pictures, stream=False)
    images = answer.json["choices"][0]["message"]["images"]
    assert [image["image_url"]["url"][-4:] for image in images] == ["AAAA", "BBBB"]


def test_geminis_clients_get_geminis_media_by_way_of_chunks() -> None:
    # As where a broken answer is taken up, which is understood and not passed on.
    choice = _Choice()
    reader = PartReader(0, new_id=lambda: "a1")
    parts = [
        Part(inline_data=_Blob(mime_type=kind, data="AAAA"))
        for kind in (KIND, "video/mp4", "image/png")
    ]
    chunks = [chunk for part in parts for chunk in reader.read(part)]
    assert [part for chunk in chunks for part in choice.take(chunk)] == [
        {"inlineData": {"mimeType": kind, "data": "AAAA"}}
        for kind in (KIND, "video/mp4", "image/png")
    ]
    assert [unshown(chunk, Dialect.GEMINI) for chunk in chunks] == [(), (), ()]
    from_openai = TokenChunk(extra={"audio": b'{"id":"a","data":"AAAA"}'})
    assert choice.take(from_openai) == []
    assert unshown(from_openai, Dialect.GEMINI) == ("sound",)
