"""Read ``contents`` and ``systemInstruction``: turns of parts to messages.

A turn of the user may hold tools' results between other parts; canonically
these are messages of their own, so such a turn becomes several messages, in
order.

Calls and results are tied by id canonically.  Gemini clients may leave ids out
and mean the order: so a call without one gets an id out of its position, the
same for the same conversation each time, and a result without one takes the
oldest call of its name that has no result yet.  A result that stands there twice,
as a conversation that Gemini CLI resumed has it, is read once.

Pure.

Source: Gemini API reference, "Content" and "Part".
"""

from __future__ import annotations

from itertools import groupby

import attrs
import msgspec
from msgspec import Raw

from atomr_infer.model.batch import Message, Role
from atomr_infer.model.parts import (
    AudioPart,
    FileId,
    FilePart,
    ImagePart,
    Inline,
    MediaSource,
    Part,
    RawPart,
    ReasoningPart,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.wire.fields import Fields, invalid
from atomr_infer.wire.gemini.members import fields_of, nested
from atomr_infer.wire.gemini.signatures import from_wire, standard_base64

_ROLES = {
    "user": Role.USER,
    "model": Role.ASSISTANT,
    # The name that the API's first version had for a turn of results.
    "function": Role.USER,
}

_KINDS = ("text", "inlineData", "fileData", "functionCall", "functionResponse")


class _PlainPart(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class _PlainTurn(msgspec.Struct, forbid_unknown_fields=True):
    parts: list[_PlainPart]
    role: str = "user"


_decode_plain = msgspec.json.Decoder(_PlainTurn).decode


def _plain_turn(raw: Raw) -> list[Message] | None:
    """Return a turn of text alone in one step, as most are; None: it is none."""
    try:
        turn = _decode_plain(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    role = _ROLES.get(turn.role)
    if role is None or not turn.parts:
        return None
    return [Message(role, tuple(TextPart(part.text) for part in turn.parts))]


class Conversation:
    """Reads turns in order, and remembers which calls wait for a result.

    Attributes:
        dropped: members of parts that have no canonical form.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[str, str]] = []
        self._answered: dict[str, ToolResultPart] = {}
        self._calls = 0
        self.dropped: list[str] = []

    def turn(self, raw: Raw, param: str) -> list[Message]:
        """Return the messages of one item of ``contents``.

        Raises:
            InvalidRequestError: ``param`` names the member at fault.
        """
        plain = _plain_turn(raw)
        if plain is not None:
            return plain
        fields = fields_of(raw, param)
        name = fields.text("role") or "user"
        role = _ROLES.get(name)
        if role is None:
            raise invalid(fields.path("role"), f"must be user or model, not {name!r}")
        parts = [
            part
            for place, item in fields.items("parts", "a list of parts")
            if (part := self.part(item, place)) is not None
        ]
        return [
            Message(Role.TOOL if results else role, tuple(group))
            for results, group in groupby(parts, _is_result)
        ]

    def part(self, raw: Raw, param: str) -> Part | None:
        """Return one part; None for one that says nothing."""
        fields = fields_of(raw, param)
        kinds = [kind for kind in _KINDS if kind in fields]
        if len(kinds) > 1:
            raise invalid(param, f"holds both {kinds[0]!r} and {kinds[1]!r}")
        thought = bool(fields.flag("thought"))
        told = fields.text("thoughtSignature")
        signature, encrypted = (None, False) if told is None else from_wire(told)
        if not kinds and fields.rest():
            return RawPart(next(iter(fields.rest())), bytes(raw))
        if encrypted:
            fields.raw("text")
            part: Part | None = ReasoningPart(data=signature)
        elif kinds:
            part = self._known(kinds[0], fields, signature, thought=thought)
        else:
            part = _bare(signature, thought=thought)
        self.dropped += [fields.path(name) for name in fields.rest()]
        return part

    def _known(
        self, kind: str, fields: Fields, signature: Signature | None, *, thought: bool
    ) -> Part | None:
        match kind:
            case "text":
                text = fields.text("text") or ""
                if thought:
                    return ReasoningPart(text=text, signature=signature)
                return TextPart(text, signature=signature)
            case "functionCall":
                return self._call(_object(fields, kind), signature)
            case "functionResponse":
                return self._result(_object(fields, kind))
            case _:
                return media(_object(fields, kind), inline=kind == "inlineData")

    def _call(self, fields: Fields, signature: Signature | None) -> ToolCallPart:
        name = fields.required("name", str, "a string")
        call_id = fields.text("id") or self._made_id()
        arguments = fields.raw("args") or fields.raw("arguments") or Raw(b"{}")
        if not bytes(arguments).startswith(b"{"):
            raise invalid(fields.path("args"), "must be an object")
        self._waiting.append((call_id, name))
        return ToolCallPart(
            id=call_id,
            name=name,
            arguments=msgspec.json.format(bytes(arguments), indent=-1).decode(),
            signature=signature,
        )

    def _made_id(self) -> str:
        self._calls += 1
        return f"gemini_call_{self._calls}"

    def _result(self, fields: Fields) -> ToolResultPart | None:
        name = fields.required("name", str, "a string")
        told = fields.text("id")
        call_id = self._called(told, name)
        result = self._result_of(fields, name, call_id or told or "")
        if call_id is not None:
            self._answered[call_id] = result
        elif self._stands_there(result, told):
            return None
        if not result.call_id:
            return attrs.evolve(result, call_id=self._made_id())
        return result

    def _stands_there(self, result: ToolResultPart, call_id: str | None) -> bool:
        """Whether a result that no call waits for says again what was said."""
        if call_id is not None:
            return self._answered.get(call_id) == result
        return any(
            result == attrs.evolve(before, call_id="")
            for before in self._answered.values()
        )

    def _result_of(self, fields: Fields, name: str, call_id: str) -> ToolResultPart:
        raw = fields.raw("response")
        text, is_error = ("", False) if raw is None else _outcome(fields, raw)
        content: list[TextPart | ImagePart | FilePart] = []
        if text:
            content.append(TextPart(text))
        for place, item in fields.items("parts", "a list of parts"):
            part = self.part(item, place)
            if not isinstance(part, ImagePart | FilePart | TextPart):
                raise invalid(place, "must be inlineData or fileData")
            content.append(part)
        return ToolResultPart(
            call_id=call_id, content=tuple(content), name=name, is_error=is_error
        )

    def _called(self, call_id: str | None, name: str) -> str | None:
        for waiting in self._waiting:
            if waiting[0] == call_id or (call_id is None and waiting[1] == name):
                self._waiting.remove(waiting)
                return waiting[0]
        return None


def _bare(signature: Signature | None, *, thought: bool) -> Part | None:
    """Return a part without content: a stream's last one is often a signature."""
    if signature is None:
        return None
    if thought:
        return ReasoningPart(signature=signature)
    return TextPart("", signature=signature)


def _is_result(part: Part) -> bool:
    return isinstance(part, ToolResultPart)


def _object(fields: Fields, name: str) -> Fields:
    found = nested(fields, name)
    if found is None:
        raise invalid(fields.path(name), "must be an object, not null")
    return found


def _outcome(fields: Fields, raw: Raw) -> tuple[str, bool]:
    """Return what a tool said, and whether that is an error.

    An object with the one member ``result`` or ``error`` is how a plain text
    is wrapped, here and by the client libraries.
    """
    members = fields_of_response(raw, fields.path("response"))
    if len(members) == 1:
        [(name, value)] = members.items()
        if name in {"result", "error"} and bytes(value).startswith(b'"'):
            return msgspec.json.decode(value, type=str), name == "error"
    return msgspec.json.format(bytes(raw), indent=-1).decode(), "error" in members


def fields_of_response(raw: Raw, param: str) -> dict[str, Raw]:
    """Return a tool's answer as its members, named as the tool named them.

    Raises:
        InvalidRequestError: it is no object.
    """
    try:
        return msgspec.json.decode(raw, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(param, "must be an object") from error


def media(fields: Fields, *, inline: bool) -> ImagePart | AudioPart | FilePart:
    """Return the part that a ``Blob`` or a ``FileData`` holds."""
    media_type = fields.text("mimeType") or ""
    filename = fields.text("displayName")
    source: MediaSource
    if inline:
        data = fields.required("data", str, "base64 text")
        source = Inline(media_type, standard_base64(data))
    else:
        uri = fields.required("fileUri", str, "a string")
        source = Url(uri, media_type=media_type) if "://" in uri else FileId(uri)
    return media_part(source, media_type, filename=filename)


def media_part(
    source: MediaSource, media_type: str, *, filename: str | None = None
) -> ImagePart | AudioPart | FilePart:
    """Return the part for media of a type."""
    family = media_type.partition("/")[0].lower()
    if family == "image":
        return ImagePart(source=source)
    if family == "audio":
        return AudioPart(source=source)
    return FilePart(source=source, filename=filename)
