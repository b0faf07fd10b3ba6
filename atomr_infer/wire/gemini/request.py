"""Read requests of Google's dialect: generation, and counting its prompt.

Pure.

Source: Gemini API reference, "Generating content" and "Counting tokens".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import TextPart
from atomr_infer.model.source import Source
from atomr_infer.wire.fields import Fields, decode, invalid
from atomr_infer.wire.gemini.asks import generation_config, tool_choice, tools
from atomr_infer.wire.gemini.contents import Conversation
from atomr_infer.wire.gemini.members import fields_of, fields_of_body, nested

if TYPE_CHECKING:
    from atomr_infer.wire.ingress import Call

STREAM = "streamGenerateContent"
"""The action that asks for pieces."""

_MAX_NAME = 256


@attrs.frozen
class Read:
    """A request, read.

    Attributes:
        batch: its canonical form.
        dropped: members that have no canonical form, by their places.
    """

    batch: ExecuteBatch
    dropped: tuple[str, ...] = ()


def parse_generate(call: Call) -> Read:
    """Return the generation that a request asks for.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    streamed = call.action == STREAM
    fields = fields_of_body(call.body, wanted="with 'contents'")
    source = None
    # Events can be passed on as they are; an array's items cannot.
    if not streamed or wants_events(call):
        source = Source(Dialect.GEMINI, call.body, None)
    return _generation(call, fields, stream=streamed, source=source)


def wants_events(call: Call) -> bool:
    """Whether a stream shall be server-sent events and no JSON array."""
    return call.query.get("alt", "").lower() == "sse"


def parse_count(call: Call) -> Read:
    """Return the request whose prompt is to be counted.

    It stands in ``generateContentRequest``, or at the root.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    fields = fields_of_body(call.body, wanted="with 'contents'")
    inner = nested(fields, "generateContentRequest")
    return _generation(call, inner or fields, stream=False)


def _generation(
    call: Call, fields: Fields, *, stream: bool, source: Source | None = None
) -> Read:
    # The upstream must not choose between the path's model and the body's.
    source = None if "model" in fields else source
    model = model_name(call, fields)
    conversation = Conversation()
    system = _system(fields, conversation)
    messages = _messages(fields, conversation)
    declared, dropped = tools(fields)
    config = generation_config(fields)
    choice = tool_choice(fields)
    batch = ExecuteBatch(
        request_id=call.request_id,
        model=model,
        messages=(*system, *messages),
        sampling=config.sampling,
        stream=stream,
        tools=declared,
        tool_choice=choice,
        response_format=config.response_format,
        reasoning=config.reasoning,
        dialect=Dialect.GEMINI,
        extra=fields.rest(),
        source=source,
    )
    return Read(batch, (*conversation.dropped, *dropped))


def model_name(call: Call, fields: Fields) -> str:
    """Take the model's name: the path's, without the collection's.

    A body may repeat it; the path decides.
    """
    told = fields.text("model")
    name = (call.model or told or "").removeprefix("models/")
    if not name:
        raise invalid("model", "must not be empty")
    if len(name) > _MAX_NAME or not name.isprintable():
        # It goes into logs and errors, and is compared with every name served.
        raise invalid("model", f"must be at most {_MAX_NAME} printable characters")
    return name


def _system(fields: Fields, conversation: Conversation) -> list[Message]:
    name = "systemInstruction"
    raw = fields.raw(name)
    if raw is None:
        return []
    if bytes(raw).startswith(b'"'):
        # The client libraries' older form, and their users'.
        text = decode(fields.path(name), raw, str, wanted="a string")
        return [Message(Role.SYSTEM, text)] if text else []
    content = fields_of(raw, fields.path(name))
    content.text("role")
    parts = []
    for place, item in content.items("parts", "a list of parts"):
        part = conversation.part(item, place)
        if part is not None and not isinstance(part, TextPart):
            raise invalid(place, "must be text: it is an instruction")
        if part is not None:
            parts.append(part)
    return [Message(Role.SYSTEM, tuple(parts))] if parts else []


def _messages(fields: Fields, conversation: Conversation) -> list[Message]:
    if "contents" not in fields:
        raise invalid(fields.path("contents"), "is required")
    found: list[Message] = []
    for place, item in fields.items("contents", "a list of contents"):
        found += conversation.turn(item, place)
    if not found:
        raise invalid(fields.path("contents"), "must hold at least one part")
    return found
