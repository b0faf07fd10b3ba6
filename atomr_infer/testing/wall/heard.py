"""What a client heard, read with no mercy in each dialect.

No library is between: what a library would forgive is a fault here.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from atomr_infer.testing.wall.scenarios import Dialect
from atomr_infer.wire.sse import DONE, SseEvent, SseReader

Json = Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Reply:
    """The bytes of an answer.

    Attributes:
        status: HTTP status; 0: there was none.
        headers: by lower-case name.
        body: of the answer.
        complete: False when the connection ended inside of it.
        timely: False when it was given up.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool
    timely: bool = True


@attrs.define
class Heard:
    """What a client made of an answer.

    Attributes:
        text: of the first choice.
        finish: the dialect's word for its end; None: none came.
        error: the message of an error; None: there was none.
        code: of that error, where the dialect has one.
        ended: whether the dialect's end was there.
        usage: prompt and output tokens; None: nothing was said.
        faults: what no client should have to put up with.
    """

    text: str = ""
    finish: str | None = None
    error: str | None = None
    code: str | None = None
    ended: bool = False
    usage: tuple[int, int] | None = None
    faults: list[str] = attrs.field(factory=list)

    def blame(self, fault: str) -> None:
        """Note a fault."""
        self.faults.append(fault)


def hear(dialect: Dialect, reply: Reply, *, stream: bool) -> Heard:
    """Return what an answer says."""
    heard = Heard()
    if not reply.timely:
        heard.blame("the client was left waiting")
    if not reply.complete:
        heard.blame("the connection ended inside of the answer")
    if not reply.status:
        return heard
    reader = _READERS[dialect]
    if reply.status != 200:
        _hear_error(dialect, heard, _decode(heard, reply.body))
    elif stream:
        _hear_stream(dialect, heard, reply)
    else:
        reader(heard, _decode(heard, reply.body))
        heard.ended = heard.finish is not None
    return heard


# --- streams ----------------------------------------------------------------


def _hear_stream(dialect: Dialect, heard: Heard, reply: Reply) -> None:
    if not reply.headers.get("content-type", "").startswith("text/event-stream"):
        heard.blame(f"a stream of {reply.headers.get('content-type')}")
    reader = SseReader()
    events = reader.feed(reply.body)
    if reader.close() is not None or reader.truncated:
        heard.blame("the stream ends inside of an event")
    for event in events:
        if heard.ended or heard.error is not None:
            heard.blame(f"more after the end: {event.data[:60]!r}")
        _hear_event(dialect, heard, event)
    if dialect is Dialect.GEMINI:
        heard.ended = heard.finish is not None


def _hear_event(dialect: Dialect, heard: Heard, event: SseEvent) -> None:
    if event.data == DONE:
        if dialect is not Dialect.OPENAI:
            heard.blame("[DONE] in another dialect than OpenAI's")
        heard.ended = True
        return
    members = _decode(heard, event.data)
    named = (Dialect.ANTHROPIC, Dialect.RESPONSES)
    if dialect in named and event.event != members.get("type"):
        heard.blame(f"event {event.event!r} holds {members.get('type')!r}")
    if dialect is Dialect.RESPONSES and members.get("type") == "error":
        _hear_error(dialect, heard, {"error": members})
    elif "error" in members:
        _hear_error(dialect, heard, members)
    else:
        _READERS[dialect](heard, members)


def _decode(heard: Heard, data: bytes) -> Json:
    try:
        members = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        heard.blame(f"not JSON: {data[:60]!r}")
        return {}
    return members if isinstance(members, dict) else {}


# --- answers ----------------------------------------------------------------


def _hear_openai(heard: Heard, members: Json) -> None:
    for choice in members.get("choices") or ():
        said = choice.get("delta") or choice.get("message") or {}
        heard.text += said.get("content") or ""
        _finish(heard, choice.get("finish_reason"))
    usage = members.get("usage")
    if usage is not None:
        heard.usage = (usage["prompt_tokens"], usage["completion_tokens"])


def _hear_anthropic(heard: Heard, members: Json) -> None:
    kind = members.get("type")
    if kind == "message":
        heard.text = "".join(b.get("text", "") for b in members["content"])
    if kind == "content_block_delta":
        heard.text += members["delta"].get("text", "")
    if kind in ("message", "message_delta"):
        _finish(heard, members.get("delta", members).get("stop_reason"))
        usage = members["usage"]
        cached = usage.get("cache_read_input_tokens") or 0
        written = usage.get("cache_creation_input_tokens") or 0
        prompt = usage["input_tokens"] + cached + written
        heard.usage = (prompt, usage["output_tokens"])
    heard.ended = heard.ended or kind == "message_stop"


def _hear_gemini(heard: Heard, members: Json) -> None:
    for candidate in members.get("candidates") or ():
        for part in (candidate.get("content") or {}).get("parts") or ():
            heard.text += "" if part.get("thought") else part.get("text", "")
        _finish(heard, candidate.get("finishReason"))
    if "promptFeedback" in members:
        _finish(heard, members["promptFeedback"].get("blockReason"))
    usage = members.get("usageMetadata")
    if usage is not None:
        output = usage.get("candidatesTokenCount", 0)
        thoughts = usage.get("thoughtsTokenCount", 0)
        heard.usage = (usage.get("promptTokenCount", 0), output + thoughts)


def _hear_response(heard: Heard, members: Json) -> None:
    kind = members.get("type", "response.whole")
    if kind == "response.output_text.delta":
        heard.text += members["delta"]
    response = members.get("response", members)
    if kind == "response.failed":
        _hear_error(Dialect.RESPONSES, heard, response)
    elif kind in ("response.completed", "response.incomplete", "response.whole"):
        if kind == "response.whole":
            heard.text = "".join(_texts(response))
        elif heard.text != "".join(_texts(response)):
            heard.blame("the last event has another text than the ones before it")
        details = response.get("incomplete_details") or {}
        _finish(heard, details.get("reason", response["status"]))
        usage = response["usage"]
        heard.usage = (usage["input_tokens"], usage["output_tokens"])
        heard.ended = True


def _texts(response: Json) -> Iterator[str]:
    for item in response["output"]:
        for part in item.get("content") or ():
            yield part.get("text", "")


_READERS: Mapping[Dialect, Callable[[Heard, Json], None]] = {
    Dialect.OPENAI: _hear_openai,
    Dialect.ANTHROPIC: _hear_anthropic,
    Dialect.GEMINI: _hear_gemini,
    Dialect.RESPONSES: _hear_response,
}


def _finish(heard: Heard, reason: str | None) -> None:
    if reason is None:
        return
    if heard.finish is not None:
        heard.blame(f"finished twice: {heard.finish}, {reason}")
    heard.finish = reason


# --- errors -----------------------------------------------------------------

_ERROR_KEYS: Mapping[Dialect, Sequence[str]] = {
    Dialect.OPENAI: ("message", "type", "param", "code"),
    Dialect.ANTHROPIC: ("type", "message"),
    Dialect.GEMINI: ("code", "message", "status"),
    Dialect.RESPONSES: ("code", "message"),
}
_NEVER = ("Traceback", "<html", "sk-wall")


def _hear_error(dialect: Dialect, heard: Heard, members: Json) -> None:
    error = members.get("error")
    if not isinstance(error, dict):
        heard.blame(f"an error in no dialect: {dict(members)!r}")
        return
    heard.error = str(error.get("message"))
    coded = (Dialect.OPENAI, Dialect.RESPONSES)
    heard.code = error.get("code") if dialect in coded else None
    missing = [key for key in _ERROR_KEYS[dialect] if key not in error]
    if missing:
        heard.blame(f"an error without {', '.join(missing)}")
    if dialect is Dialect.ANTHROPIC and members.get("type") != "error":
        heard.blame("an error that does not say so")
    for word in _NEVER:
        if word in heard.error:
            heard.blame(f"an error with {word!r} in it")
