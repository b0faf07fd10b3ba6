"""The chunks of one answer, put together again.

Every dialect's whole answer is built from this, and so is a whole answer of a
program that asked through the facade.

Pure.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.model.parts import RawJson, ReasoningPart, Signature, ToolCallPart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.batch import (
        FinishReason,
        ReasoningDelta,
        TokenChunk,
        ToolCallDelta,
        Usage,
    )


_LISTS = ("annotations", "images", "media")


@attrs.define(eq=False)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = attrs.field(factory=list)
    signature: Signature | None = None

    def add(self, delta: ToolCallDelta) -> None:
        self.id = delta.id or self.id
        self.name = delta.name or self.name
        self.arguments.append(delta.arguments)
        self.signature = delta.signature or self.signature

    def part(self) -> ToolCallPart:
        return ToolCallPart(
            id=self.id,
            name=self.name,
            arguments="".join(self.arguments),
            signature=self.signature,
        )


@attrs.define(eq=False)
class _Thought:
    text: list[str] = attrs.field(factory=list)
    signature: Signature | None = None
    data: Signature | None = None
    id: str | None = None

    def add(self, delta: ReasoningDelta) -> None:
        self.text.append(delta.text)
        self.signature = delta.signature or self.signature
        self.data = delta.data or self.data
        self.id = delta.id or self.id

    def part(self) -> ReasoningPart:
        return ReasoningPart(
            text="".join(self.text),
            signature=self.signature,
            data=self.data,
            id=self.id,
        )


class Choice:
    """One of the answers to a request, as far as it has come.

    Attributes:
        finish_reason: why it ended; None: it has not.
        native_finish: the provider's own word for that.
        stop_sequence: which stop string ended it, when known.
        logprobs: one raw JSON value for each chunk that had them.
        text_signature: the last one that came with text.
    """

    def __init__(self) -> None:
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._thoughts: dict[int, _Thought] = {}
        self._extra: dict[str, RawJson] = {}
        self._choice_extra: dict[str, RawJson] = {}
        self.finish_reason: FinishReason | None = None
        self.native_finish: str | None = None
        self.stop_sequence: str | None = None
        self.logprobs: list[RawJson] = []
        self.text_signature: Signature | None = None

    def add(self, chunk: TokenChunk) -> None:
        """Take the next chunk of this choice."""
        self._text.append(chunk.text)
        self._refusal.append(chunk.refusal)
        for call in chunk.tool_calls:
            self._calls.setdefault(call.index, _Call()).add(call)
        if chunk.reasoning is not None:
            block = chunk.reasoning.block
            self._thoughts.setdefault(block, _Thought()).add(chunk.reasoning)
        if chunk.logprobs is not None:
            self.logprobs.append(chunk.logprobs)
        for name, raw in chunk.extra.items():
            self._extra[name] = joined_member(name, self._extra.get(name), raw)
        self._choice_extra.update(chunk.choice_extra)
        self.finish_reason = self.finish_reason or chunk.finish_reason
        self.native_finish = self.native_finish or chunk.native_finish
        self.stop_sequence = self.stop_sequence or chunk.stop_sequence
        self.text_signature = chunk.text_signature or self.text_signature

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def refusal(self) -> str:
        """The refusal so far; "" when there is none."""
        return "".join(self._refusal)

    @property
    def reasoning(self) -> tuple[ReasoningPart, ...]:
        """The thoughts so far, in order."""
        return tuple(self._thoughts[block].part() for block in sorted(self._thoughts))

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The tool calls so far, in order."""
        return tuple(self._calls[index].part() for index in sorted(self._calls))

    @property
    def extra(self) -> Mapping[str, RawJson]:
        """Further members of an OpenAI message; lists and sound whole."""
        return self._extra

    @property
    def choice_extra(self) -> Mapping[str, RawJson]:
        """Further members of an OpenAI choice; the last of each name."""
        return self._choice_extra


class Collected:
    """All choices of one answer, as far as they have come.

    Attributes:
        usage: the totals; None: they have not come.
        model: the model that served, when the upstream said it.

    >>> from atomr_infer.model.batch import FinishReason, TokenChunk
    >>> collected = Collected()
    >>> collected.add(TokenChunk(text="Hel"))
    >>> collected.add(TokenChunk(text="lo", finish_reason=FinishReason.STOP))
    >>> collected.choice(0).text
    'Hello'
    """

    def __init__(self) -> None:
        self._choices: dict[int, Choice] = {}
        self.usage: Usage | None = None
        self.model: str | None = None

    def add(self, chunk: TokenChunk) -> None:
        """Take the next chunk."""
        self.usage = chunk.usage or self.usage
        self.model = chunk.model or self.model
        said = chunk.has_content or chunk.choice_extra or chunk.logprobs
        if said or chunk.finish_reason is not None:
            self._choices.setdefault(chunk.index, Choice()).add(chunk)

    def choice(self, index: int = 0) -> Choice:
        """Return one choice; an empty one when nothing of it has come."""
        return self._choices.get(index) or Choice()

    @property
    def indices(self) -> tuple[int, ...]:
        """Which choices have begun, in order."""
        return tuple(sorted(self._choices))


def joined_member(name: str, before: RawJson | None, after: RawJson) -> RawJson:
    """Return what two pieces of a message's member make together.

    >>> joined_member("images", b"[1]", b"[2,3]")
    b'[1,2,3]'
    >>> joined_member("audio", b'{"id":"a","data":"YWI="}', b'{"data":"Y2Q="}')
    b'{"id":"a","data":"YWJjZA=="}'
    >>> joined_member("x_vendor", b"1", b"2")
    b'2'
    """
    if before is None:
        return after
    if name in _LISTS and before[:1] == after[:1] == b"[":
        inner = [raw for raw in (before[1:-1].strip(), after[1:-1].strip()) if raw]
        return b"[" + b",".join(inner) + b"]"
    if name == "audio":
        return _joined_sound(before, after)
    return after


def _joined_sound(before: RawJson, after: RawJson) -> RawJson:
    try:
        first = msgspec.json.decode(before, type=dict[str, object])
        more = msgspec.json.decode(after, type=dict[str, object])
        pieces = [b64decode(str(each.get("data", ""))) for each in (first, more)]
    except ValueError:
        return after  # it is none that we know
    texts = [str(each.get("transcript") or "") for each in (first, more)]
    whole = {**first, **more, "data": b64encode(b"".join(pieces)).decode()}
    if any(texts):
        whole["transcript"] = "".join(texts)
    return msgspec.json.encode(whole)
