"""Read the ``input`` of a response: items to the messages of a conversation.

Items are finer than messages: a thought, a text and a tool call of one turn are
three items.  What one side said in a row becomes one message.

Pure.

Source: OpenAI API reference, "Create a model response", ``input``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Url,
)
from atomr_infer.wire.fields import Fields, decode, invalid
from atomr_infer.wire.openai.chat_messages import media_source
from atomr_infer.wire.openai.responses_proof import read_proof
from atomr_infer.wire.openai.responses_tools import flat_name, free_text_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_INPUT = "a string or a list of items"


def parse_input(root: Fields, *, before: bytes | None = None) -> tuple[Message, ...]:
    """Take the ``input`` of a request.

    Args:
        root: the request.
        before: a JSON array of items that come first; None: none do.

    Raises:
        InvalidRequestError: with ``param`` naming the item at fault.
    """
    raw = root.raw("input")
    if raw is None:
        raise invalid("input", "is required")
    said = _said(root, raw)
    if before is None:
        return merged(said)
    stored = Fields({"stored": Raw(before)}).items("stored", _INPUT)
    return merged([*(_item(param, each) for param, each in stored), *said])


def _said(root: Fields, raw: Raw) -> list[Message]:
    if bytes(raw).startswith(b'"'):
        return [Message(Role.USER, decode("input", raw, str, wanted=_INPUT))]
    root.put_back("input", raw)
    items = root.items("input", _INPUT)
    if not items:
        raise invalid("input", "must hold at least one item")
    return [_item(param, each) for param, each in items]


def merged(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return the messages with an assistant's, or tools', in a row made one."""
    found: list[Message] = []
    for message in messages:
        last = found[-1] if found else None
        joins = message.role in (Role.ASSISTANT, Role.TOOL)
        if last is not None and joins and last.role is message.role:
            found[-1] = Message(message.role, last.content + message.content)
        else:
            found.append(message)
    return tuple(found)


def _item(param: str, raw: Raw) -> Message:
    fields = Fields.of(raw, param)
    kind = fields.text("type") or "message"
    match kind:
        case "message":
            return _message(fields)
        case "function_call":
            return Message(Role.ASSISTANT, (_function_call(fields),))
        case "custom_tool_call":
            return Message(Role.ASSISTANT, (_custom_call(fields),))
        case "function_call_output" | "custom_tool_call_output":
            return Message(Role.TOOL, (_function_output(fields),))
        case "reasoning":
            return Message(Role.ASSISTANT, (_reasoning(fields),))
        case "item_reference":
            raise invalid(
                param, "refers to an item that is not stored here; send the item itself"
            )
        case _:
            return Message(Role.ASSISTANT, (RawPart(kind, bytes(raw)),))


def _message(fields: Fields) -> Message:
    name = fields.required("role", str, "a string")
    try:
        role = Role(name)
    except ValueError as error:
        problem = f"must be user, assistant, system or developer, not {name!r}"
        raise invalid(fields.path("role"), problem) from error
    if role is Role.TOOL:
        raise invalid(fields.path("role"), "of a tool is a function_call_output item")
    return Message(role, _content(fields, "content"))


def _content(fields: Fields, name: str) -> tuple[Part, ...]:
    raw = fields.raw(name)
    if raw is None:
        raise invalid(fields.path(name), "is required")
    if bytes(raw).startswith(b'"'):
        text = decode(fields.path(name), raw, str, wanted="a string")
        return (TextPart(text),)
    fields.put_back(name, raw)
    parts = fields.items(name, "a string or a list of parts")
    return tuple(_part(param, part) for param, part in parts)


def _part(param: str, raw: Raw) -> Part:
    fields = Fields.of(raw, param)
    kind = fields.required("type", str, "a string")
    read = _READERS.get(kind)
    return RawPart(kind, bytes(raw)) if read is None else read(fields)


def _text(fields: Fields) -> Part:
    return TextPart(fields.required("text", str, "a string"))


def _refusal(fields: Fields) -> Part:
    return RefusalPart(fields.required("refusal", str, "a string"))


def _image(fields: Fields) -> Part:
    url, identity = fields.text("image_url"), fields.text("file_id")
    if url is not None:
        source = media_source(fields.path("image_url"), url)
    elif identity is not None:
        source = FileId(identity)
    else:
        raise invalid(fields.param, "needs 'image_url' or 'file_id'")
    return ImagePart(source=source, detail=fields.text("detail"))


def _file(fields: Fields) -> Part:
    data, identity = fields.text("file_data"), fields.text("file_id")
    url = fields.text("file_url")
    source: MediaSource
    if identity is not None:
        source = FileId(identity)
    elif data is not None:
        source = media_source(fields.path("file_data"), data)
    elif url is not None:
        source = Url(url)
    else:
        raise invalid(fields.param, "needs 'file_id', 'file_data' or 'file_url'")
    return FilePart(source=source, filename=fields.text("filename"))


def _audio(fields: Fields) -> Part:
    audio = fields.nested("input_audio")
    if audio is None:
        raise invalid(fields.path("input_audio"), "is required")
    form = audio.required("format", str, "a string")
    data = audio.required("data", str, "base64 text")
    return AudioPart(source=Inline(f"audio/{form}", data))


_READERS: dict[str, Callable[[Fields], Part]] = {
    "input_text": _text,
    "output_text": _text,
    "text": _text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}


def _function_call(fields: Fields) -> ToolCallPart:
    return ToolCallPart(
        id=fields.required("call_id", str, "a string"),
        name=_called_name(fields),
        arguments=fields.required("arguments", str, "a string"),
    )


def _custom_call(fields: Fields) -> ToolCallPart:
    return ToolCallPart(
        id=fields.required("call_id", str, "a string"),
        name=_called_name(fields),
        arguments=free_text_arguments(fields.required("input", str, "a string")),
    )


def _called_name(fields: Fields) -> str:
    name = fields.required("name", str, "a string")
    return flat_name(name, fields.text("namespace"))


def _function_output(fields: Fields) -> ToolResultPart:
    call_id = fields.required("call_id", str, "a string")
    kept: list[TextPart | ImagePart | FilePart] = []
    for part in _content(fields, "output"):
        if not isinstance(part, TextPart | ImagePart | FilePart):
            raise invalid(fields.path("output"), "holds text, images and files")
        kept.append(part)
    return ToolResultPart(call_id=call_id, content=tuple(kept))


def _reasoning(fields: Fields) -> ReasoningPart:
    texts = [
        Fields.of(raw, param).text("text") or ""
        for name in ("content", "summary")
        for param, raw in fields.items(name, "a list of texts")
    ]
    return read_proof(
        text="\n".join(texts),
        encrypted=fields.text("encrypted_content"),
        identity=fields.text("id"),
    )
