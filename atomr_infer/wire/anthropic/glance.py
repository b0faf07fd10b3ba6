"""A Messages request that can be passed on, recognized at a glance.

As :mod:`~atomr_infer.wire.openai.chat_glance` does for chat completions: what the
types below admit, :func:`~atomr_infer.wire.anthropic.request.parse_request` takes as
well, with the same meaning, and a Claude model takes it as it is.  An agent's turn
holds its whole conversation, so reading one costs what hundreds of chunks do.

Not admitted, among others, is what a Claude model may have to be asked otherwise: a
thought that Anthropic has not signed, a system message inside the conversation, and
an assistant's turn at its end.

Pure.

Source: Anthropic API reference, "Create a Message".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.batch import ExecuteBatch, Sampling
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.source import Source
from atomr_infer.wire.anthropic.versions import (
    HEADER,
    kept_headers,
    takes_sampling,
    version_of,
)
from atomr_infer.wire.ingress import Asked

if TYPE_CHECKING:
    from atomr_infer.wire.ingress import Call

_MAX_NAME = 256

# Written so, a second ``model`` would not be found as text.
_ESCAPED_LETTERS = (b"\\u004", b"\\u006")

_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_Unit = Annotated[float, Meta(ge=0, le=1)]
_Whole = Annotated[int, Meta(ge=0, le=2**31)]
_Word = Annotated[str, Meta(min_length=1)]
_Said = Annotated[str, Meta(pattern=r"\S")]
_Signed = Annotated[str, Meta(pattern=r"^(?!atomr:)[\s\S]")]
_Object = dict[str, Raw]


class _Cache(Struct):
    ttl: str | None = None


class _Text(Struct, tag_field="type", tag="text"):
    text: str
    citations: None = None
    cache_control: _Cache | None = None


class _Base64(Struct, tag_field="type", tag="base64"):
    data: str
    media_type: str | None = None


class _Url(Struct, tag_field="type", tag="url"):
    url: str


class _Image(Struct, tag_field="type", tag="image"):
    source: _Base64 | _Url
    cache_control: _Cache | None = None


class _ToolResult(Struct, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[_Text | _Image] | None = None
    is_error: bool | None = None
    cache_control: _Cache | None = None


class _ToolUse(Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: _Object | None = None
    cache_control: _Cache | None = None


class _Thinking(Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: _Signed


class _Redacted(Struct, tag_field="type", tag="redacted_thinking"):
    data: _Signed


class _User(Struct, tag_field="role", tag="user"):
    content: str | list[_Text | _Image | _ToolResult]


class _Assistant(Struct, tag_field="role", tag="assistant"):
    content: str | list[_Text | _ToolUse | _Thinking | _Redacted]


class _Tool(Struct):
    name: _Word
    input_schema: _Object
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: _Cache | None = None


class _Auto(Struct, tag_field="type", tag="auto"):
    disable_parallel_tool_use: bool | None = None


class _Any(_Auto, tag_field="type", tag="any"):
    pass


class _None(_Auto, tag_field="type", tag="none"):
    pass


class _One(Struct, tag_field="type", tag="tool"):
    name: str
    disable_parallel_tool_use: bool | None = None


class _Disabled(Struct, tag_field="type", tag="disabled"):
    pass


class _Adaptive(Struct, tag_field="type", tag="adaptive"):
    display: Literal["summarized", "omitted"] | None = None


class _Enabled(Struct, tag_field="type", tag="enabled"):
    budget_tokens: Annotated[int, Meta(ge=1, le=2**31)]
    display: Literal["summarized", "omitted"] | None = None


class _Schema(Struct, tag_field="type", tag="json_schema"):
    schema: _Object


class _Output(Struct):
    effort: Literal["minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    format: _Schema | None = None


class _Metadata(Struct):
    user_id: str | None = None


# Nobody keeps one: ``gc=False`` spares the collector the tree.
class _Request(Struct, forbid_unknown_fields=True, gc=False):
    model: _Word
    messages: Annotated[list[_User | _Assistant], Meta(min_length=1, max_length=10_000)]
    max_tokens: _Whole
    system: str | list[_Text] | None = None
    stream: bool | None = None
    stop_sequences: list[_Said] | None = None
    temperature: _Unit | UnsetType = UNSET
    top_p: _Unit | UnsetType = UNSET
    top_k: _Whole | UnsetType = UNSET
    metadata: _Metadata | None = None
    tools: list[_Tool] | None = None
    tool_choice: _Auto | _Any | _None | _One | None = None
    thinking: _Disabled | _Adaptive | _Enabled | None = None
    output_config: _Output | None = None
    # What is not modelled goes on as it is.
    cache_control: Any = None
    context_management: Any = None
    service_tier: Any = None


_decode = msgspec.json.Decoder(_Request).decode


def glance_at_messages(call: Call) -> Asked | None:
    """Return a request without its conversation; None: it must be read whole.

    Its ``batch`` says whom it is for and how it is answered, and holds the
    client's bytes; ``messages`` is empty.
    """
    if call.action is not None:
        return None  # it is to be counted
    body = call.body
    try:
        version = version_of(call.headers.get(HEADER))
        request = _decode(body)
    except (*_ERRORS, InvalidRequestError):
        return None
    model = request.model
    if len(model) > _MAX_NAME or not model.isprintable():
        return None
    if isinstance(request.messages[-1], _Assistant):
        return None  # not every model goes on with that
    if _samples(request) and not takes_sampling(version):
        return None
    capital, small = _ESCAPED_LETTERS
    sole = body.count(b'"model"') == 1 and capital not in body and small not in body
    batch = ExecuteBatch(
        request_id=call.request_id,
        model=model,
        messages=(),
        sampling=Sampling(max_tokens=request.max_tokens),
        stream=request.stream or False,
        dialect=Dialect.ANTHROPIC,
        client_headers=kept_headers(call.headers),
        source=Source(Dialect.ANTHROPIC, body, model, sole=sole),
        priority=call.visitor.priority,
        asker=call.visitor.asker,
    )
    return Asked(batch=batch)


def _samples(request: _Request) -> bool:
    return not (request.temperature is request.top_p is request.top_k is UNSET)
