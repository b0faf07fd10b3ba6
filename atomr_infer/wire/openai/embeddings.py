"""The embeddings route of OpenAI.

Pure.

Source: OpenAI API reference, "Create embeddings".
"""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

import attrs
import msgspec
from msgspec import Raw

from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.usage import Usage
from atomr_infer.wire.fields import Fields, decode, invalid
from atomr_infer.wire.openai.chat_request import model_name

if TYPE_CHECKING:
    from atomr_infer.model.embeddings import Vector
    from atomr_infer.wire.ingress import Call

_MAX_INPUTS = 2048  # OpenAI's own bound
_BYTES_PER_TOKEN = 4  # of English text, in every tokenizer in use
_FORMATS = ("float", "base64")
_INPUT = "a string, a list of strings, or token ids"

Input = str | tuple[int, ...]


@attrs.frozen(kw_only=True)
class EmbeddingsAsked:
    """A request, read.

    Attributes:
        request: its canonical form.
        base64: True when vectors are wanted as base64 of float32.
    """

    request: EmbedRequest
    base64: bool = False


def parse_embeddings(call: Call) -> EmbeddingsAsked:
    """Return the request that a call's body holds.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    root = Fields.of_body(call.body, wanted="with 'model' and 'input'")
    model = model_name(root)
    inputs = _inputs(root)
    form = root.text("encoding_format") or "float"
    if form not in _FORMATS:
        raise invalid("encoding_format", f"must be float or base64, not {form!r}")
    request = EmbedRequest(
        request_id=call.request_id,
        model=model,
        inputs=inputs,
        dimensions=root.whole("dimensions", 1, 2**20),
        user=root.text("user"),
        dialect=Dialect.OPENAI_CHAT,
        extra=root.rest(),
    )
    return EmbeddingsAsked(request=request, base64=form == "base64")


def _inputs(root: Fields) -> tuple[Input, ...]:
    raw = root.raw("input")
    if raw is None:
        raise invalid("input", "is required")
    if bytes(raw).startswith(b'"'):
        inputs: tuple[Input, ...] = (decode("input", raw, str, wanted=_INPUT),)
    else:
        items = decode("input", raw, list[Raw], wanted=_INPUT)
        inputs = _listed(raw, items)
    if not inputs:
        raise invalid("input", "must not be empty")
    if len(inputs) > _MAX_INPUTS:
        problem = f"must hold at most {_MAX_INPUTS} inputs, not {len(inputs)}"
        raise invalid("input", problem)
    for at, each in enumerate(inputs):
        if not each:
            raise invalid(f"input[{at}]", "must not be empty")
    return inputs


def _listed(raw: Raw, items: list[Raw]) -> tuple[Input, ...]:
    first = bytes(items[0])[:1] if items else b""
    if first == b'"':
        return tuple(decode("input", raw, list[str], wanted=_INPUT))
    if first == b"[":
        lists = decode("input", raw, list[list[int]], wanted=_INPUT)
        return tuple(tuple(ids) for ids in lists)
    return (tuple(decode("input", raw, list[int], wanted=_INPUT)),) if items else ()


def embeddings_body(asked: EmbeddingsAsked, found: Embeddings, model: str) -> bytes:
    """Return the answer.

    Args:
        asked: the request.
        found: its vectors.
        model: the model that served.
    """
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _base64(vector) if asked.base64 else vector,
        }
        for index, vector in enumerate(found.vectors)
    ]
    tokens = found.usage.prompt_tokens
    return msgspec.json.encode(
        {
            "object": "list",
            "data": data,
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _base64(vector: Vector) -> str:
    packed = struct.pack(f"<{len(vector)}f", *vector)
    return base64.b64encode(packed).decode("ascii")


# --- the upstream's side --------------------------------------------------------


def encode_embed_request(request: EmbedRequest) -> bytes:
    """Return the body for an OpenAI-like upstream; vectors come as base64.

    A float takes about 18 bytes as JSON text and 5.3 as base64.
    """
    inputs: list[str | tuple[int, ...]] = list(request.inputs)
    members: dict[str, object] = {
        "model": request.model,
        "input": inputs,
        "encoding_format": "base64",
    }
    if request.dimensions is not None:
        members["dimensions"] = request.dimensions
    if request.user is not None:
        members["user"] = request.user
    if request.dialect is Dialect.OPENAI_CHAT:
        for name, raw in request.extra.items():
            members.setdefault(name, msgspec.Raw(raw))
    return msgspec.json.encode(members)


class _Item(msgspec.Struct):
    embedding: str | list[float]
    index: int = 0


class _Counted(msgspec.Struct):
    prompt_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[_Item]
    model: str | None = None
    usage: _Counted | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


def decode_embeddings(body: bytes, request: EmbedRequest) -> Embeddings | None:
    """Return the vectors of an answer; None when it is no answer to the request.

    Servers that do not know base64 answer with numbers, which is as good.
    """
    try:
        answer = _decode_answer(body)
        by_index = {item.index: _vector(item.embedding) for item in answer.data}
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, struct.error):
        return None
    wanted = range(len(request.inputs))
    if sorted(by_index) != list(wanted):
        return None
    if len({len(vector) for vector in by_index.values()}) != 1:
        return None
    counted = answer.usage
    usage = (
        Usage(input_uncached=max(0, counted.prompt_tokens))
        if counted is not None
        else _estimate(request)
    )
    return Embeddings(
        vectors=tuple(by_index[index] for index in wanted),
        usage=usage,
        model=answer.model,
    )


def _vector(embedding: str | list[float]) -> Vector:
    if not isinstance(embedding, str):
        return tuple(embedding)
    packed = base64.b64decode(embedding, validate=True)
    return struct.unpack(f"<{len(packed) // 4}f", packed)


def _estimate(request: EmbedRequest) -> Usage:
    sizes = (
        -(-len(each.encode()) // _BYTES_PER_TOKEN)
        if isinstance(each, str)
        else len(each)
        for each in request.inputs
    )
    return Usage(input_uncached=sum(sizes), estimated=True)


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)
