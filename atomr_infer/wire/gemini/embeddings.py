"""Embeddings in Google's format: requests and answers, towards both sides.

AI Studio has ``:embedContent`` for one text and ``:batchEmbedContents`` for
several; Vertex has these for its Gemini models, with the options in an object
of their own, and ``:predict`` for the older ones.

Pure.

Source: Gemini API reference, "Embeddings"; Vertex AI, "Text embeddings API".
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.errors import UnsupportedFeatureError
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.parts import TextPart
from atomr_infer.model.usage import Usage
from atomr_infer.wire.fields import invalid
from atomr_infer.wire.gemini.contents import Conversation
from atomr_infer.wire.gemini.members import fields_of, fields_of_body, nested
from atomr_infer.wire.gemini.request import model_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr_infer.model.embeddings import Vector
    from atomr_infer.wire.fields import Fields
    from atomr_infer.wire.ingress import Call

_MAX_INPUTS = 2048
_MAX_DIMENSIONS = 2**16
_BYTES_PER_TOKEN = 4

# --- a client's request -----------------------------------------------------


def parse_embed(call: Call) -> EmbedRequest:
    """Return the text that ``:embedContent`` is about.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    return _one(call, fields_of_body(call.body, wanted="with 'content'"))


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
    first, *others = [
        (place, _one(call, fields_of(raw, place))) for place, raw in items
    ]
    inputs = list(first[1].inputs)
    for place, other in others:
        inputs += other.inputs
        if attrs.evolve(other, inputs=first[1].inputs) != first[1]:
            raise invalid(place, "must differ from the first request in its text only")
    return attrs.evolve(first[1], inputs=tuple(inputs))


def _one(call: Call, fields: Fields) -> EmbedRequest:
    model = model_name(call, fields)
    place = fields.path("content")
    content = nested(fields, "content")
    if content is None:
        raise invalid(place, "is required")
    # Vertex has the options in an object of their own.
    options = nested(fields, "embedContentConfig") or fields
    return EmbedRequest(
        request_id=call.request_id,
        model=model,
        inputs=(_text(content),),
        dimensions=options.whole("outputDimensionality", 1, _MAX_DIMENSIONS),
        task=options.text("taskType"),
        title=options.text("title"),
        dialect=Dialect.GEMINI,
        extra=options.rest(),
    )


def _text(content: Fields) -> str:
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


# --- a client's answer ------------------------------------------------------


def embedded(found: Embeddings) -> bytes:
    """Return the answer of ``:embedContent``."""
    [vector] = found.vectors
    return _answer({"embedding": {"values": vector}}, found)


def batch_embedded(found: Embeddings) -> bytes:
    """Return the answer of ``:batchEmbedContents``."""
    return _answer({"embeddings": [{"values": v} for v in found.vectors]}, found)


def _answer(members: dict[str, object], found: Embeddings) -> bytes:
    usage = {"promptTokenCount": found.usage.prompt_tokens}
    return msgspec.json.encode({**members, "usageMetadata": usage})


# --- an upstream's request --------------------------------------------------


class EmbedMethod(Enum):
    """How an upstream is asked; the value is the method's name."""

    STUDIO = "batchEmbedContents"
    VERTEX = "embedContent"
    PREDICT = "predict"

    @property
    def max_inputs(self) -> int:
        """Texts in one request."""
        return _MAX_BY_METHOD[self]


_MAX_BY_METHOD = {
    EmbedMethod.STUDIO: 100,
    EmbedMethod.VERTEX: 1,
    EmbedMethod.PREDICT: 250,
}


def encode_embed(
    request: EmbedRequest, inputs: Sequence[str], *, method: EmbedMethod, resource: str
) -> bytes:
    """Return the body of a request for some of the inputs.

    Args:
        request: what was asked.
        inputs: at most ``method.max_inputs`` of its texts.
        method: how this upstream is asked.
        resource: the model's resource name.
    """
    extra = request.extra if request.dialect is Dialect.GEMINI else {}
    options = {
        "taskType": request.task,
        "title": request.title,
        "outputDimensionality": request.dimensions,
        **{name: msgspec.Raw(raw) for name, raw in extra.items()},
    }
    said = {name: value for name, value in options.items() if value is not None}
    if method is EmbedMethod.PREDICT:
        return _predict(said, inputs)
    contents = [{"content": {"parts": [{"text": text}]}} for text in inputs]
    if method is EmbedMethod.VERTEX:
        config = {"embedContentConfig": said} if said else {}
        return msgspec.json.encode({**contents[0], **config})
    requests = [{"model": resource, **content, **said} for content in contents]
    return msgspec.json.encode({"requests": requests})


def _predict(options: Mapping[str, object], inputs: Sequence[str]) -> bytes:
    about = {
        name: options[member]
        for name, member in (("task_type", "taskType"), ("title", "title"))
        if member in options
    }
    parameters = {k: v for k, v in options.items() if k not in {"taskType", "title"}}
    body: dict[str, object] = {
        "instances": [{"content": text, **about} for text in inputs]
    }
    if parameters:
        body["parameters"] = parameters
    return msgspec.json.encode(body)


def texts_of(request: EmbedRequest) -> list[str]:
    """Return the inputs as texts.

    Raises:
        UnsupportedFeatureError: one is a list of another maker's tokens.
    """
    texts = []
    for each in request.inputs:
        if not isinstance(each, str):
            raise UnsupportedFeatureError(
                "this model takes texts and no token ids", param="input"
            )
        texts.append(each)
    return texts


# --- an upstream's answer ---------------------------------------------------


class _Values(msgspec.Struct):
    values: list[float]


class _Statistics(msgspec.Struct):
    token_count: float | None = None


class _Predicted(_Values):
    statistics: _Statistics | None = None


class _Prediction(msgspec.Struct):
    embeddings: _Predicted


class _Counts(msgspec.Struct, rename="camel"):
    prompt_token_count: float | None = None


class _EmbedAnswer(msgspec.Struct, rename="camel"):
    embedding: _Values | None = None
    embeddings: list[_Values] = []
    predictions: list[_Prediction] = []
    usage_metadata: _Counts | None = None


_decode = msgspec.json.Decoder(_EmbedAnswer).decode


def decode_embed(body: bytes, inputs: Sequence[str]) -> Embeddings | None:
    """Return the vectors of an answer; None when it is no answer to ``inputs``."""
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = [answer.embedding] if answer.embedding is not None else answer.embeddings
    found = found or [each.embeddings for each in answer.predictions]
    vectors: tuple[Vector, ...] = tuple(tuple(each.values) for each in found)
    if len(vectors) != len(inputs) or len({len(vector) for vector in vectors}) != 1:
        return None
    return Embeddings(vectors=vectors, usage=_usage(answer, inputs))


def _usage(answer: _EmbedAnswer, inputs: Sequence[str]) -> Usage:
    counts = [each.embeddings.statistics for each in answer.predictions]
    told = [each.token_count for each in counts if each is not None]
    if answer.usage_metadata is not None:
        told = [answer.usage_metadata.prompt_token_count]
    whole = [int(count) for count in told if count is not None and 0 <= count < 2**53]
    if told and len(whole) == len(told):
        return Usage(input_uncached=sum(whole))
    size = sum(-(-len(text.encode()) // _BYTES_PER_TOKEN) for text in inputs)
    return Usage(input_uncached=size, estimated=True)
