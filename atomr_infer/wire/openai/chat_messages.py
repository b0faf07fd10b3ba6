"""Read the messages of a chat completion request.

Beside OpenAI's own members three extensions are read that clients of gateways
send back: ``cache_control`` on parts, ``reasoning_content`` with
``reasoning_details`` on assistant messages, and Google's ``extra_content`` on
tool calls.

Pure.

Source: OpenAI API reference, "Create chat completion", ``messages``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from atomr_infer.model.batch import Message, Role
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    AudioPart,
    CacheHint,
    FileId,
    FilePart,
    ImagePart,
    Inline,
    MediaSource,
    Part,
    RawPart,
    ReasoningPart,
    RefusalPart,
    Signature,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.wire.fields import Fields, decode, invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.errors import InvalidRequestError

_DATA_URL = "data:"
_BASE64 = ";base64"

_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}


def parse_messages(root: Fields) -> tuple[Message, ...]:
    """Take the ``messages`` of a request.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    raws = root.required("messages", list[Raw], "a list of messages")
    if not raws:
        raise invalid("messages", "must hold at least one message")
    return tuple(
        _message(Fields.of(raw, f"messages[{at}]")) for at, raw in enumerate(raws)
    )


def _message(fields: Fields) -> Message:
    role = _role(fields)
    content = _content(fields)
    if role is Role.ASSISTANT:
        content = (*_reasoning(fields), *(content or ()), *_said(fields))
    elif content is None:
        raise invalid(fields.path("content"), "is required")
    if role is Role.TOOL:
        content = (_tool_result(fields, content),)
    name = fields.text("name")
    return Message(role, content, name=name, extra=fields.rest())


def _role(fields: Fields) -> Role:
    name = fields.required("role", str, "a string")
    try:
        return Role(name)
    except ValueError as error:
        known = ", ".join(role.value for role in Role)
        problem = f"must be one of {known}, not {name!r}"
        raise invalid(fields.path("role"), problem) from error


def _content(fields: Fields) -> tuple[Part, ...] | None:
    raw = fields.raw("content")
    if raw is None:
        return None
    param = fields.path("content")
    if bytes(raw).startswith(b'"'):
        return (TextPart(decode(param, raw, str, wanted="a string")),)
    raws = decode(param, raw, list[Raw], wanted="a string or a list of parts")
    return tuple(_part(f"{param}[{at}]", part) for at, part in enumerate(raws))


# --- parts --------------------------------------------------------------------


def _part(param: str, raw: Raw) -> Part:
    fields = Fields.of(raw, param)
    kind = fields.required("type", str, "a string")
    read = _READERS.get(kind)
    if read is None:
        return RawPart(kind, bytes(raw))
    return read(fields)


def _text(fields: Fields) -> Part:
    text = fields.required("text", str, "a string")
    return TextPart(text, cache=cache_hint(fields))


def _refusal(fields: Fields) -> Part:
    return RefusalPart(fields.required("refusal", str, "a string"))


def _image(fields: Fields) -> Part:
    image = _object(fields, "image_url")
    url = image.required("url", str, "a string")
    return ImagePart(
        source=media_source(image.path("url"), url),
        detail=image.text("detail"),
        cache=cache_hint(fields),
    )


def _audio(fields: Fields) -> Part:
    audio = _object(fields, "input_audio")
    form = audio.required("format", str, "a string")
    data = audio.required("data", str, "base64 text")
    media_type = _AUDIO_TYPES.get(form, f"audio/{form}")
    return AudioPart(source=Inline(media_type, data), cache=cache_hint(fields))


def _file(fields: Fields) -> Part:
    file = _object(fields, "file")
    identity, data = file.text("file_id"), file.text("file_data")
    filename = file.text("filename")
    source: MediaSource
    if identity is not None:
        source = FileId(identity)
    elif data is not None:
        source = media_source(file.path("file_data"), data)
    else:
        raise invalid(file.param, "needs 'file_id' or 'file_data'")
    return FilePart(source=source, filename=filename, cache=cache_hint(fields))


_READERS: dict[str, Callable[[Fields], Part]] = {
    "text": _text,
    "refusal": _refusal,
    "image_url": _image,
    "input_audio": _audio,
    "file": _file,
}


def _object(fields: Fields, name: str) -> Fields:
    nested = fields.nested(name)
    if nested is None:
        raise invalid(fields.path(name), "is required")
    return nested


def media_source(param: str, url: str) -> MediaSource:
    """Return where media is: inside the URL, or at it.

    Raises:
        InvalidRequestError: it is a data URL that is not base64.
    """
    if not url.startswith(_DATA_URL):
        return Url(url)
    head, comma, data = url.removeprefix(_DATA_URL).partition(",")
    if not comma or not head.endswith(_BASE64):
        raise invalid(param, "must be an https URL or 'data:<type>;base64,<data>'")
    return Inline(head.removesuffix(_BASE64), data)


def cache_hint(fields: Fields) -> CacheHint | None:
    """Take a part's ``cache_control``."""
    control = fields.nested("cache_control")
    return None if control is None else CacheHint(ttl=control.text("ttl"))


# --- what an assistant said before ----------------------------------------------


def _said(fields: Fields) -> list[Part]:
    parts: list[Part] = []
    refusal = fields.text("refusal")
    if refusal is not None:
        parts.append(RefusalPart(refusal))
    calls = fields.raw("tool_calls")
    if calls is None:
        return parts
    param = fields.path("tool_calls")
    raws = decode(param, calls, list[Raw], wanted="a list of tool calls")
    parts += [_tool_call(f"{param}[{at}]", raw) for at, raw in enumerate(raws)]
    return parts


def _tool_call(param: str, raw: Raw) -> Part:
    fields = Fields.of(raw, param)
    kind = fields.text("type") or "function"
    if kind != "function":
        return RawPart(f"tool_call:{kind}", bytes(raw))
    identity = fields.required("id", str, "a string")
    function = _object(fields, "function")
    return ToolCallPart(
        id=identity,
        name=function.required("name", str, "a string"),
        arguments=function.text("arguments") or "",
        signature=_google_signature(fields),
    )


def _google_signature(fields: Fields) -> Signature | None:
    extra = fields.nested("extra_content")
    google = None if extra is None else extra.nested("google")
    text = None if google is None else google.text("thought_signature")
    return None if text is None else Signature(text, Dialect.GEMINI)


def _tool_result(fields: Fields, content: tuple[Part, ...]) -> ToolResultPart:
    call_id = fields.required("tool_call_id", str, "a string")
    kept: list[TextPart | ImagePart | FilePart] = []
    for part in content:
        if not isinstance(part, TextPart | ImagePart | FilePart):
            raise invalid(fields.path("content"), "of a tool holds text and images")
        kept.append(part)
    return ToolResultPart(
        call_id=call_id, content=tuple(kept), name=fields.text("name")
    )


def _reasoning(fields: Fields) -> list[Part]:
    """Take back what we wrote: the details are exact, the text is their sum."""
    text = fields.text("reasoning_content")
    details = fields.items("reasoning_details", "a list of objects")
    if details:
        return [_detail(Fields.of(raw, param)) for param, raw in details]
    return [] if text is None else [ReasoningPart(text=text)]


def _detail(fields: Fields) -> ReasoningPart:
    origin = _origin(fields)
    signature, data = fields.text("signature"), fields.text("data")
    return ReasoningPart(
        text=fields.text("text") or fields.text("summary") or "",
        signature=None if signature is None else Signature(signature, origin),
        data=None if data is None else Signature(data, origin),
        id=fields.text("id"),
    )


def _origin(fields: Fields) -> Dialect:
    name = fields.text("origin")
    try:
        return Dialect.OPENAI_RESPONSES if name is None else Dialect(name)
    except ValueError as error:
        raise _unknown_origin(fields, name or "") from error


def _unknown_origin(fields: Fields, name: str) -> InvalidRequestError:
    known = ", ".join(dialect.value for dialect in Dialect)
    return invalid(fields.path("origin"), f"must be one of {known}, not {name!r}")
