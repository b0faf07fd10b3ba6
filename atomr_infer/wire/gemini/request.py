"""Read requests of Google's dialect: generation, counting and embedding.

Pure.

Source: Gemini API reference, "Generating content", "Tokens" and "Embeddings".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import EmbedRequest
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
_MAX_INPUTS = 2048
_MAX_DIMENSIONS = 2**16


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
    read = _generation(call, fields, stream=streamed)
    # Events can be passed on as they are; an array's items cannot.
    if streamed and not wants_events(call):
        return read
    source = Source(Dialect.GEMINI, call.body, None)
    return attrs.evolve(read, batch=attrs.evolve(read.batch, source=source))


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


def _generation(call: Call, fields: Fields, *, stream: bool) -> Read:
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


# --- embeddings -------------------------------------------------------------


def parse_embed(call: Call) -> EmbedRequest:
    """Return the texts that ``:embedContent`` is about.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    fields = fields_of_body(call.body, wanted="with 'content'")
    return _embed_request(call, [fields])


def parse_batch_embed(call: Call) -> EmbedRequest:
    """Return the texts that ``:batchEmbedContents`` is about.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault; requests
            of one batch must not differ but in their text.
    """
    fields = fields_of_body(call.body, wanted="with 'requests'")
    items = fields.items("requests", "a list of requests")
    if not 1 <= len(items) <= _MAX_INPUTS:
        raise invalid("requests", f"must hold 1 to {_MAX_INPUTS} requests")
    return _embed_request(call, [fields_of(raw, place) for place, raw in items])


def _embed_request(call: Call, requests: list[Fields]) -> EmbedRequest:
    first, *others = [_embed_one(call, fields) for fields in requests]
    for fields, other in zip(requests[1:], others, strict=True):
        if attrs.evolve(other, inputs=first.inputs) != first:
            raise invalid(fields.param, "must differ from the first in its text only")
    inputs = tuple(text for one in (first, *others) for text in one.inputs)
    return attrs.evolve(first, inputs=inputs)


def _embed_one(call: Call, fields: Fields) -> EmbedRequest:
    model = model_name(call, fields)
    place = fields.path("content")
    content = nested(fields, "content")
    if content is None:
        raise invalid(place, "is required")
    return EmbedRequest(
        request_id=call.request_id,
        model=model,
        inputs=(_embed_text(content),),
        dimensions=fields.whole("outputDimensionality", 1, _MAX_DIMENSIONS),
        task=fields.text("taskType"),
        title=fields.text("title"),
        dialect=Dialect.GEMINI,
        extra=fields.rest(),
    )


def _embed_text(content: Fields) -> str:
    conversation = Conversation()
    texts = []
    for place, item in content.items("parts", "a list of parts"):
        part = conversation.part(item, place)
        if not isinstance(part, TextPart):
            raise invalid(place, "must be text")
        texts.append(part.text)
    if not texts:
        raise invalid(content.path("parts"), "must hold text")
    return "".join(texts)
