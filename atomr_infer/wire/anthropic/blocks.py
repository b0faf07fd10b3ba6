"""Read the content blocks of a Messages request.

Anthropic has two roles in a conversation where the canonical form has four: a
tool's result is a block of a user's turn.  A user's turn is therefore taken
apart where its blocks change from results to anything else and back.

Members of a block that the canonical form has no place for are named in
``Notes``; they are lost only when the request is made anew for another dialect.

Pure.

Source: Anthropic API reference, "Messages", content blocks.
"""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING

import attrs
from msgspec import Raw

from atomr_infer.model.batch import Message, Role
from atomr_infer.model.parts import (
    CacheHint,
    FileId,
    FilePart,
    ImagePart,
    Inline,
    MediaSource,
    Part,
    RawPart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.wire.anthropic.signatures import read_signature
from atomr_infer.wire.anthropic.versions import NEW, takes_sampling
from atomr_infer.wire.fields import Fields, decode, invalid

if TYPE_CHECKING:
    from collections.abc import Callable

_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}

# Says who called a tool; "direct" is what every model does unless told otherwise.
_SILENT = frozenset({"caller", "toolset_name"})


@attrs.frozen
class Notes:
    """What a request holds that another dialect could not be told.

    Attributes:
        dropped: the places of members without a canonical form.
        cited: the places of texts with citations, in the turn that is read.
    """

    dropped: list[str] = attrs.field(factory=list)
    cited: list[str] = attrs.field(factory=list)

    def drop_rest(self, fields: Fields) -> None:
        """Note every member that was not taken."""
        for name, raw in fields.rest().items():
            if raw != b"null" and name not in _SILENT:
                self.dropped.append(fields.path(name))


def parse_messages(root: Fields, *, version: str, notes: Notes) -> list[Message]:
    """Take the ``messages`` of a request.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    raws = root.required("messages", list[Raw], "a list of messages")
    if not raws:
        raise invalid("messages", "must hold at least one message")
    messages: list[Message] = []
    for at, raw in enumerate(raws):
        fields = Fields.of(raw, f"messages[{at}]")
        messages += _turn(fields, version=version, notes=notes)
    return messages


def parse_system(root: Fields, notes: Notes) -> list[Message]:
    """Take the ``system`` of a request; [] when there is none."""
    raw = root.raw("system")
    if raw is None:
        return []
    parts = _content(root.path("system"), raw, notes)
    for part in parts:
        if not isinstance(part, TextPart):
            raise invalid("system", "must be a string or a list of text blocks")
    return [Message(Role.SYSTEM, parts)] if parts else []


def _turn(fields: Fields, *, version: str, notes: Notes) -> list[Message]:
    name = fields.required("role", str, "a string")
    if name not in _ROLES:
        known = ", ".join(_ROLES)
        raise invalid(fields.path("role"), f"must be one of {known}, not {name!r}")
    raw = fields.raw("content")
    if raw is None:
        raise invalid(fields.path("content"), "is required")
    role = _ROLES[name]
    if bytes(raw).startswith(b'"'):
        # Most turns are one text, and there is nothing to check in one.
        text = decode(fields.path("content"), raw, str, wanted="a string")
        return [Message(role, (TextPart(text),))]
    notes.cited.clear()
    parts = _content(fields.path("content"), raw, notes)
    _check_places(fields.path("content"), role, parts)
    if not takes_sampling(version):
        _check_new_version(fields.path("content"), role, parts, notes)
    if role is Role.USER:
        return _user_messages(parts)
    return [Message(role, parts)]


def _user_messages(parts: tuple[Part, ...]) -> list[Message]:
    if not parts:
        return [Message(Role.USER, ())]
    runs = itertools.groupby(parts, key=lambda part: isinstance(part, ToolResultPart))
    return [
        Message(Role.TOOL if is_result else Role.USER, tuple(run))
        for is_result, run in runs
    ]


def _check_places(param: str, role: Role, parts: tuple[Part, ...]) -> None:
    for at, part in enumerate(parts):
        place = f"{param}[{at}]"
        if isinstance(part, ToolCallPart) and role is not Role.ASSISTANT:
            raise invalid(place, "is a tool_use block outside of an assistant's turn")
        if isinstance(part, ToolResultPart) and role is not Role.USER:
            raise invalid(place, "is a tool_result block outside of a user's turn")
        if isinstance(part, ReasoningPart) and role is not Role.ASSISTANT:
            raise invalid(place, "is a thinking block outside of an assistant's turn")


def _check_new_version(
    param: str, role: Role, parts: tuple[Part, ...], notes: Notes
) -> None:
    for at, part in enumerate(parts):
        document = isinstance(part, RawPart) and part.kind == "document"
        if role is Role.ASSISTANT and (document or isinstance(part, FilePart)):
            problem = f"is a document in an assistant's turn, which {NEW} refuses"
            raise invalid(f"{param}[{at}]", problem)
    if role is Role.USER and notes.cited:
        problem = f"must be empty in a user's turn, as {NEW} wants it"
        raise invalid(f"{notes.cited[0]}.citations", problem)


def _content(param: str, raw: Raw, notes: Notes) -> tuple[Part, ...]:
    if bytes(raw).startswith(b'"'):
        return (TextPart(decode(param, raw, str, wanted="a string")),)
    raws = decode(param, raw, list[Raw], wanted="a string or a list of blocks")
    return tuple(
        _block(f"{param}[{at}]", block, notes) for at, block in enumerate(raws)
    )


# --- blocks -------------------------------------------------------------------


def _block(param: str, raw: Raw, notes: Notes) -> Part:
    fields = Fields.of(raw, param)
    kind = fields.required("type", str, "a string")
    read = _READERS.get(kind)
    part = None if read is None else read(fields, notes)
    if part is None:
        return RawPart(kind, bytes(raw))
    notes.drop_rest(fields)
    return part


def _text(fields: Fields, notes: Notes) -> Part:
    text = fields.required("text", str, "a string")
    citations = fields.optional("citations", list[Raw], "a list")
    if citations:
        notes.cited.append(fields.param)
        notes.dropped.append(fields.path("citations"))
    return TextPart(text, cache=cache_hint(fields))


def _image(fields: Fields, _: Notes) -> Part | None:
    source = _media(_object(fields, "source"))
    if source is None:
        return None
    return ImagePart(source=source, cache=cache_hint(fields))


def _document(fields: Fields, _: Notes) -> Part | None:
    source = _media(_object(fields, "source"))
    if source is None:
        return None
    return FilePart(
        source=source, filename=fields.text("title"), cache=cache_hint(fields)
    )


def _media(source: Fields) -> MediaSource | None:
    """Return where media is; None when it is a document made of blocks."""
    kind = source.required("type", str, "a string")
    if kind == "base64":
        data = source.required("data", str, "base64 text")
        return Inline(source.text("media_type") or "", data)
    if kind == "text":
        data = source.required("data", str, "a string")
        media_type = source.text("media_type") or "text/plain"
        return Inline(media_type, base64.b64encode(data.encode()).decode())
    if kind == "url":
        return Url(source.required("url", str, "a string"))
    if kind == "file":
        return FileId(source.required("file_id", str, "a string"))
    if kind == "content":
        return None
    known = "base64, text, url, file, content"
    raise invalid(source.path("type"), f"must be one of {known}, not {kind!r}")


def _thinking(fields: Fields, _: Notes) -> Part:
    text = fields.required("thinking", str, "a string")
    return ReasoningPart(
        text=text, signature=read_signature(fields.text("signature") or "")
    )


def _redacted_thinking(fields: Fields, _: Notes) -> Part:
    data = fields.required("data", str, "a string")
    return ReasoningPart(data=read_signature(data))


def _tool_use(fields: Fields, _: Notes) -> Part:
    identity = fields.required("id", str, "a string")
    name = fields.required("name", str, "a string")
    arguments = fields.raw("input")
    if arguments is not None and bytes(arguments)[:1] != b"{":
        raise invalid(fields.path("input"), "must be an object")
    return ToolCallPart(
        id=identity,
        name=name,
        arguments="{}" if arguments is None else _utf8(fields, arguments),
        cache=cache_hint(fields),
    )


def _utf8(fields: Fields, raw: Raw) -> str:
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise invalid(fields.path("input"), "is not valid UTF-8") from error


def _tool_result(fields: Fields, notes: Notes) -> Part:
    call_id = fields.required("tool_use_id", str, "a string")
    raw = fields.raw("content")
    return ToolResultPart(
        call_id=call_id,
        content=() if raw is None else _result(fields.path("content"), raw, notes),
        is_error=fields.flag("is_error") or False,
        cache=cache_hint(fields),
    )


_ResultPart = TextPart | ImagePart | FilePart


def _result(param: str, raw: Raw, notes: Notes) -> tuple[_ResultPart, ...]:
    if bytes(raw).startswith(b'"'):
        return (TextPart(decode(param, raw, str, wanted="a string")),)
    raws = decode(param, raw, list[Raw], wanted="a string or a list of blocks")
    return tuple(
        _result_part(f"{param}[{at}]", block, notes) for at, block in enumerate(raws)
    )


def _result_part(param: str, raw: Raw, notes: Notes) -> _ResultPart:
    fields = Fields.of(raw, param)
    kind = fields.required("type", str, "a string")
    if kind in _NO_RESULT:
        raise invalid(fields.path("type"), f"{kind!r} cannot be inside a tool_result")
    read = _READERS.get(kind)
    part = None if read is None else read(fields, notes)
    if isinstance(part, TextPart | ImagePart | FilePart):
        notes.drop_rest(fields)
        return part
    # A search result, say: its text is in its JSON, and any model reads that.
    return TextPart(bytes(raw).decode("utf-8", "replace"))


_READERS: dict[str, Callable[[Fields, Notes], Part | None]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "thinking": _thinking,
    "redacted_thinking": _redacted_thinking,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
}


_NO_RESULT = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking"})


def _object(fields: Fields, name: str) -> Fields:
    nested = fields.nested(name)
    if nested is None:
        raise invalid(fields.path(name), "is required")
    return nested


def cache_hint(fields: Fields) -> CacheHint | None:
    """Take a block's ``cache_control``."""
    control = fields.nested("cache_control")
    return None if control is None else CacheHint(ttl=control.text("ttl"))
