"""Write a response as events: items open, grow and close, then the whole.

Thoughts and text close when something else begins.  Calls stay open until the
end, since a provider may write several in turns.

Pure.

Source: OpenAI API reference, "Streaming events"; Open Responses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.errors import RateLimitedError
from atomr_infer.model.parts import ReasoningPart, ToolCallPart
from atomr_infer.wire.citations import (
    Citation,
    read_annotations,
    response_annotations,
)
from atomr_infer.wire.openai.responses_items import taken_up
from atomr_infer.wire.openai.responses_output import (
    Members,
    ResponseObject,
    call_id,
    call_item,
    ending,
    item_id,
    logprob_tokens,
    message_item,
    reasoning_item,
    refusal_part,
    text_part,
)
from atomr_infer.wire.openai.responses_tools import CallForm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.batch import (
        FinishReason,
        ReasoningDelta,
        TokenChunk,
        ToolCallDelta,
    )
    from atomr_infer.model.usage import Usage
    from atomr_infer.wire.ingress import AnswerFacts, Asked

_json = msgspec.json.Encoder().encode


@attrs.define(eq=False)
class _Said:
    """The message item that is open: text or a refusal, never both."""

    id: str
    number: int
    refusal: bool
    pieces: list[str] = attrs.field(factory=list)
    logprobs: list[object] = attrs.field(factory=list)
    citations: list[Citation] = attrs.field(factory=list)

    def part(self, *, empty: bool = False) -> Members:
        text = "" if empty else "".join(self.pieces)
        if self.refusal:
            return refusal_part(text)
        return text_part(text, self.logprobs, self.citations)


@attrs.define(eq=False)
class _Thought:
    id: str
    number: int
    block: int
    delta: ReasoningPart = attrs.field(factory=ReasoningPart)

    def add(self, delta: ReasoningDelta) -> None:
        self.delta = ReasoningPart(
            text=self.delta.text + delta.text,
            signature=delta.signature or self.delta.signature,
            data=delta.data or self.delta.data,
            id=self.id,
        )


@attrs.define(eq=False)
class _Call:
    id: str
    number: int
    call: ToolCallPart
    form: CallForm | None

    @property
    def custom(self) -> bool:
        return self.form is not None and self.form.custom

    def item(self, status: str) -> Members:
        return call_item(self.id, self.call, status, form=self.form)


class ResponseStreamEncoder:
    """Encodes one streamed response; feed it every chunk in order."""

    def __init__(self, asked: Asked, facts: AnswerFacts) -> None:
        self._object = ResponseObject(asked, facts)
        self._facts = facts
        self._sequence = 0
        self._items: list[Members] = []
        self._said: _Said | None = None
        self._last_said: _Said | None = None
        self._thought: _Thought | None = None
        self._calls: dict[int, _Call] = {}
        self._begun = facts.joined is not None
        self._id: str | None = None
        if facts.joined is not None:
            self._id, self._sequence = taken_up(*facts.joined)
        self._finish: FinishReason | None = None
        self._usage: Usage | None = None

    def encode(self, chunk: TokenChunk) -> bytes:
        """Return the events for a chunk."""
        self._usage = chunk.usage or self._usage
        if chunk.index != 0:
            return b""  # a response has one answer
        events = [self._begin()]
        if chunk.reasoning is not None:
            events.append(self._think(chunk.reasoning))
        if chunk.text:
            events.append(self._say(chunk.text, chunk=chunk, refusal=False))
        if chunk.refusal:
            events.append(self._say(chunk.refusal, chunk=chunk, refusal=True))
        if chunk.extra:
            events += self._cite(read_annotations(chunk.extra.get("annotations")))
        events += [self._call(delta) for delta in chunk.tool_calls]
        self._finish = self._finish or chunk.finish_reason
        return b"".join(events)

    def end(self) -> bytes:
        """Return the events that close what is open, then the whole response."""
        status, reason = ending(self._finish)
        events = [self._begin(), self._close_all(status)]
        whole = self._object.members(
            status, self._items, usage=self._usage, incomplete=reason
        )
        events.append(self._event(f"response.{status}", response=whole))
        return b"".join(events)

    def fail(self, error: InferenceError) -> bytes:
        """Return ``response.failed``; nothing may follow it (W6)."""
        # The SDK's type knows a closed list of codes, and of ours only this one.
        limited = isinstance(error, RateLimitedError)
        code = "rate_limit_exceeded" if limited else "server_error"
        problem: Members = {"code": code, "message": error.message}
        failed = self._object.members("failed", self._items, error=problem)
        if self._id is not None:
            failed["id"] = self._id
        return self._begin() + self._event("response.failed", response=failed)

    def _event(self, kind: str, **members: object) -> bytes:
        data = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), _json(data))

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        begun = self._object.members("in_progress", [])
        return b"".join(
            self._event(f"response.{kind}", response=begun)
            for kind in ("created", "in_progress")
        )

    def _open(self, item: Members) -> int:
        """Give an item its place in the output."""
        self._items.append(item)
        return len(self._items) - 1

    def _added(self, number: int) -> bytes:
        return self._event(
            "response.output_item.added", output_index=number, item=self._items[number]
        )

    def _done(self, number: int, item: Members) -> bytes:
        self._items[number] = item
        return self._event("response.output_item.done", output_index=number, item=item)

    def _close_all(self, status: str) -> bytes:
        closed = [self._close_thought(), self._close_said(status)]
        if not self._items:  # an empty answer is an answer
            closed += [self._open_said(refusal=False), self._close_said(status)]
        closed += [self._close_call(call, status) for call in self._calls.values()]
        self._calls.clear()
        return b"".join(closed)

    # --- text and refusals ------------------------------------------------------

    def _say(self, text: str, *, chunk: TokenChunk, refusal: bool) -> bytes:
        events = [self._close_thought()]
        if self._said is not None and self._said.refusal is not refusal:
            events.append(self._close_said("completed"))
        if self._said is None:
            events.append(self._open_said(refusal=refusal))
        said = self._said
        assert said is not None
        said.pieces.append(text)
        where: Members = {
            "item_id": said.id,
            "output_index": said.number,
            "content_index": 0,
            "delta": text,
        }
        if refusal:
            events.append(self._event("response.refusal.delta", **where))
            return b"".join(events)
        tokens = [] if chunk.logprobs is None else logprob_tokens([chunk.logprobs])
        said.logprobs += tokens
        where["logprobs"] = tokens
        events.append(self._event("response.output_text.delta", **where))
        return b"".join(events)

    def _cite(self, citations: Sequence[Citation]) -> Iterator[bytes]:
        """Say where the text that is open comes from."""
        said = self._said
        if said is None:
            self._cite_closed(citations)
            return
        if said.refusal:
            return
        for citation in citations:
            [annotation] = response_annotations([citation])
            yield self._event(
                "response.output_text.annotation.added",
                item_id=said.id,
                output_index=said.number,
                content_index=0,
                annotation_index=len(said.citations),
                annotation=annotation,
            )
            said.citations.append(citation)

    def _cite_closed(self, citations: Sequence[Citation]) -> None:
        """Say it of the last text in the whole response: its own events are over."""
        said = self._last_said
        if said is None or said.refusal or not citations:
            return
        said.citations += citations
        item = self._items[said.number]
        self._items[said.number] = {**item, "content": [said.part()]}

    def _open_said(self, *, refusal: bool) -> bytes:
        identity = item_id("msg", self._facts, len(self._items))
        number = self._open(message_item(identity, [], "in_progress"))
        said = self._said = _Said(identity, number, refusal)
        return self._added(number) + self._event(
            "response.content_part.added",
            item_id=said.id,
            output_index=number,
            content_index=0,
            part=said.part(empty=True),
        )

    def _close_said(self, status: str) -> bytes:
        said, self._said = self._said, None
        if said is None:
            return b""
        self._last_said = said
        where: Members = {
            "item_id": said.id,
            "output_index": said.number,
            "content_index": 0,
        }
        part = said.part()
        text = "".join(said.pieces)
        if said.refusal:
            done = self._event("response.refusal.done", **where, refusal=text)
        else:
            done = self._event(
                "response.output_text.done",
                **where,
                text=text,
                logprobs=said.logprobs,
            )
        done += self._event("response.content_part.done", **where, part=part)
        return done + self._done(said.number, message_item(said.id, [part], status))

    # --- thoughts ---------------------------------------------------------------

    def _think(self, delta: ReasoningDelta) -> bytes:
        events = [self._close_said("completed")]
        thought = self._thought
        if thought is not None and thought.block != delta.block:
            events.append(self._close_thought())
            thought = None
        if thought is None:
            identity = delta.id or item_id("rs", self._facts, len(self._items))
            number = self._open(reasoning_item(identity, ReasoningPart()))
            thought = self._thought = _Thought(identity, number, delta.block)
            events.append(self._added(number))
        if delta.text and not thought.delta.text:
            part = {"type": "summary_text", "text": ""}
            where = _summary(thought)
            added = "response.reasoning_summary_part.added"
            events.append(self._event(added, **where, part=part))
        thought.add(delta)
        if delta.text:
            kind = "response.reasoning_summary_text.delta"
            events.append(self._event(kind, **_summary(thought), delta=delta.text))
        return b"".join(events)

    def _close_thought(self) -> bytes:
        thought, self._thought = self._thought, None
        if thought is None:
            return b""
        events = []
        if thought.delta.text:
            where, text = _summary(thought), thought.delta.text
            part = {"type": "summary_text", "text": text}
            kind = "response.reasoning_summary"
            events.append(self._event(f"{kind}_text.done", **where, text=text))
            events.append(self._event(f"{kind}_part.done", **where, part=part))
        item = reasoning_item(thought.id, thought.delta)
        return b"".join([*events, self._done(thought.number, item)])

    # --- calls ------------------------------------------------------------------

    def _call(self, delta: ToolCallDelta) -> bytes:
        events = [self._close_thought(), self._close_said("completed")]
        known = self._calls.get(delta.index)
        if known is None:
            known = self._calls[delta.index] = self._open_call(delta)
            events.append(self._added(known.number))
        elif delta.name:
            known.call = attrs.evolve(known.call, name=delta.name)
        if delta.arguments:
            arguments = known.call.arguments + delta.arguments
            known.call = attrs.evolve(known.call, arguments=arguments)
        if delta.arguments and not known.custom:
            events.append(
                self._event(
                    "response.function_call_arguments.delta",
                    item_id=known.id,
                    output_index=known.number,
                    delta=delta.arguments,
                )
            )
        return b"".join(events)

    def _open_call(self, delta: ToolCallDelta) -> _Call:
        call = ToolCallPart(id=delta.id or "", name=delta.name or "", arguments="")
        number = len(self._items)
        form = self._object.forms.get(call.name)
        known = _Call(call_id(self._facts, number, form=form), number, call, form)
        self._open(known.item("in_progress"))
        return known

    def _close_call(self, call: _Call, status: str) -> bytes:
        item = call.item(status)
        if call.custom:
            # Its text is inside the arguments, so it is known when they are whole.
            where: Members = {"item_id": call.id, "output_index": call.number}
            kind, text = "response.custom_tool_call_input", item["input"]
            written = self._event(f"{kind}.delta", **where, delta=text)
            written += self._event(f"{kind}.done", **where, input=text)
            return written + self._done(call.number, item)
        done = self._event(
            "response.function_call_arguments.done",
            item_id=call.id,
            output_index=call.number,
            name=item["name"],
            arguments=call.call.arguments,
        )
        return done + self._done(call.number, item)


def _summary(thought: _Thought) -> Members:
    return {
        "item_id": thought.id,
        "output_index": thought.number,
        "summary_index": 0,
    }
