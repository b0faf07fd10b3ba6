"""Write answers: canonical chunks to ``GenerateContentResponse``s.

What the encoder guarantees, whatever a runner sends:

*   every frame is ``data: `` and one line of JSON (W2), and nothing else is
    written: no comment, no ``[DONE]`` (W3, W5);
*   a tool call is one whole part;
*   each index finishes exactly once, no content follows its finish, and the
    finishes stand in the last frame with ``usageMetadata``, as Google's own
    do; so a client never sees a finish of an answer that then breaks.

Without ``alt=sse`` the same objects are the items of one JSON array.

Pure.

Source: Gemini API reference, "GenerateContentResponse".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs
import msgspec

from atomr_infer.wire.citations import Citation, gemini_members, read_annotations
from atomr_infer.wire.gemini.calls import CallAssembler
from atomr_infer.wire.gemini.error_body import envelope
from atomr_infer.wire.gemini.finish import Finish, to_wire
from atomr_infer.wire.gemini.logprobs import logprobs_result
from atomr_infer.wire.gemini.signatures import to_wire as signature_to_wire
from atomr_infer.wire.gemini.usage import usage_members

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.batch import RawJson, ReasoningDelta, TokenChunk
    from atomr_infer.model.usage import Usage
    from atomr_infer.wire.ingress import AnswerFacts

_json = msgspec.json.Encoder().encode

_Part = dict[str, object]


@attrs.frozen
class Frame:
    """How an object of a stream is wrapped.

    Attributes:
        first: before the first one.
        next: before each other one.
        last: behind each one.
        end: at the stream's end.
        nothing: at the end of a stream without an object.
    """

    first: bytes
    next: bytes
    last: bytes
    end: bytes
    nothing: bytes


EVENTS = Frame(b"data: ", b"data: ", b"\n\n", b"", b"")
ARRAY = Frame(b"[", b",\r\n", b"", b"]", b"[]")


class _Choice:
    """What is known of one answer of several."""

    def __init__(self) -> None:
        self.calls = CallAssembler()
        self.finish: Finish | None = None
        self.citations: tuple[Citation, ...] = ()
        self._text: list[str] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    def take(self, chunk: TokenChunk) -> list[_Part]:
        """Return the parts that a chunk completes."""
        self._text.append(chunk.text)
        self.citations += read_annotations(chunk.extra.get("annotations"))
        parts = _reasoning_parts(chunk.reasoning)
        parts += _text_parts(chunk)
        for delta in chunk.tool_calls:
            parts += self.calls.add(delta)
        parts += _media_parts(chunk)
        if chunk.finish_reason is None:
            return parts
        parts += self.calls.end()
        self.finish = to_wire(chunk.finish_reason, chunk.native_finish)
        if self.calls.malformed is not None:
            # Google's own word for it: there is no part that could hold them.
            self.finish = Finish("MALFORMED_FUNCTION_CALL", self.calls.malformed)
        return parts


class GeminiStreamEncoder:
    """Encodes one streamed answer; feed it every chunk in order."""

    def __init__(self, facts: AnswerFacts, *, frame: Frame = EVENTS) -> None:
        """Prepare the part that all frames share."""
        self._frame = frame
        tail = {"modelVersion": facts.model, "responseId": facts.request_id}
        self._tail = b"," + _json(tail)[1:]
        self._choices: dict[int, _Choice] = {}
        self._usage: Usage | None = None
        self._begun = False
        self._ended = False

    def encode(self, chunk: TokenChunk) -> bytes:
        """Return the events for a chunk, as bytes to send; b"" for none."""
        if chunk.usage is not None:
            self._usage = chunk.usage
        if not (chunk.has_content or chunk.finish_reason or chunk.logprobs):
            return b""
        choice = self._choices.setdefault(chunk.index, _Choice())
        if choice.finish is not None:
            return b""
        parts = choice.take(chunk)
        if not parts and chunk.logprobs is None:
            return b""
        return self._wrapped({"candidates": [_candidate(chunk, parts)]})

    def end(self) -> bytes:
        """Return the last frame, with every finish and the usage."""
        candidates = [
            {"content": _content([{"text": ""}]), **_ending(choice), "index": index}
            for index, choice in sorted(self._choices.items())
        ]
        members: dict[str, object] = {"candidates": candidates}
        if self._usage is not None:
            members["usageMetadata"] = usage_members(self._usage)
        return self._wrapped(members) + self._frame.end

    def fail(self, error: InferenceError) -> bytes:
        """Return the event that ends a broken answer; nothing may follow it."""
        return self._framed(envelope(error)) + self._frame.end

    def _wrapped(self, members: dict[str, object]) -> bytes:
        return self._framed(_json(members)[:-1] + self._tail)

    def _framed(self, data: bytes) -> bytes:
        before = self._frame.next if self._begun else self._frame.first
        self._begun = True
        return before + data + self._frame.last


class GeminiAnswerBuilder:
    """Collects one answer that is not streamed; feed it every chunk in order."""

    def __init__(self, facts: AnswerFacts) -> None:
        self._facts = facts
        self._choices: dict[int, _Choice] = {}
        self._parts: dict[int, list[_Part]] = {}
        self._logprobs: dict[int, list[RawJson]] = {}
        self._usage: Usage | None = None

    def add(self, chunk: TokenChunk) -> None:
        """Take the next chunk."""
        if chunk.usage is not None:
            self._usage = chunk.usage
        if not (chunk.has_content or chunk.finish_reason or chunk.logprobs):
            return
        choice = self._choices.setdefault(chunk.index, _Choice())
        if choice.finish is not None:
            return
        parts = self._parts.setdefault(chunk.index, [])
        for part in choice.take(chunk):
            _append(parts, part)
        if chunk.logprobs is not None:
            self._logprobs.setdefault(chunk.index, []).append(chunk.logprobs)

    def build(self) -> bytes:
        """Return the whole answer as JSON."""
        answer: dict[str, object] = {
            "candidates": [self._candidate(index) for index in sorted(self._choices)],
        }
        if self._usage is not None:
            answer["usageMetadata"] = usage_members(self._usage)
        answer["modelVersion"] = self._facts.model
        answer["responseId"] = self._facts.request_id
        return _json(answer)

    def _candidate(self, index: int) -> dict[str, object]:
        candidate = {
            "content": _content(self._parts[index] or [{"text": ""}]),
            **_ending(self._choices[index]),
            "index": index,
        }
        if index in self._logprobs:
            candidate |= logprobs_result(self._logprobs[index])
        return candidate


def _candidate(chunk: TokenChunk, parts: Sequence[_Part]) -> dict[str, object]:
    candidate: dict[str, object] = {"content": _content(parts), "index": chunk.index}
    if chunk.logprobs is not None:
        candidate |= logprobs_result([chunk.logprobs])
    return candidate


def _content(parts: Sequence[_Part]) -> dict[str, object]:
    return {"parts": parts, "role": "model"}


def _ending(choice: _Choice) -> dict[str, object]:
    if choice.finish is None:
        return {}
    members: dict[str, object] = {"finishReason": choice.finish.word}
    members |= gemini_members(choice.citations, choice.text)
    if choice.finish.message is not None:
        members["finishMessage"] = choice.finish.message
    return members


# --- parts ------------------------------------------------------------------


T = TypeVar("T")


def _reasoning_parts(delta: ReasoningDelta | None) -> list[_Part]:
    if delta is None:
        return []
    parts: list[_Part] = []
    if delta.text or delta.signature is not None:
        part: _Part = {"text": delta.text, "thought": True}
        if delta.signature is not None:
            part["thoughtSignature"] = signature_to_wire(delta.signature)
        parts.append(part)
    if delta.data is not None:
        told = signature_to_wire(delta.data, encrypted=True)
        parts.append({"text": "", "thought": True, "thoughtSignature": told})
    return parts


def _text_parts(chunk: TokenChunk) -> list[_Part]:
    # A refusal is what the model says; Gemini has no other place for it.
    text = chunk.text + chunk.refusal
    if chunk.text_signature is None:
        return [{"text": text}] if text else []
    told = signature_to_wire(chunk.text_signature)
    return [{"text": text, "thoughtSignature": told}]


def _media_parts(chunk: TokenChunk) -> list[_Part]:
    """Return pictures, sound and more that an answer holds, where it is inline."""
    if not chunk.extra:
        return []
    urls = [image.image_url.url for image in _read(chunk, "images", list[_Image])]
    parts = [_inline(url) for url in urls if url.startswith("data:") and "," in url]
    sound = _read(chunk, "audio", _Medium)
    media = _read(chunk, "media", list[_Medium])
    return parts + [
        {"inlineData": {"mimeType": medium.mime_type, "data": medium.data}}
        for medium in (*([sound] if sound else ()), *media)
    ]


def _read(chunk: TokenChunk, name: str, kind: type[T]) -> T | tuple[()]:
    """Return a member of a message; nothing where it is none of ours."""
    raw = chunk.extra.get(name)
    if raw is None:
        return ()
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError:
        return ()


class _Medium(msgspec.Struct):
    mime_type: str
    data: str


class _ImageUrl(msgspec.Struct):
    url: str


class _Image(msgspec.Struct):
    image_url: _ImageUrl


def _inline(url: str) -> _Part:
    head, _, data = url.removeprefix("data:").partition(",")
    media_type = head.partition(";")[0]
    return {"inlineData": {"mimeType": media_type, "data": data}}


def _append(parts: list[_Part], part: _Part) -> None:
    """Join a text with the one before it, as one answer has them."""
    last = parts[-1] if parts else None
    joins = (
        last is not None
        and "text" in last
        and "text" in part
        and "thoughtSignature" not in last
        and last.get("thought") == part.get("thought")
    )
    if not joins or last is None:
        parts.append(part)
        return
    parts[-1] = {**last, **part, "text": f"{last['text']}{part['text']}"}
