"""A chat completion request that can be passed on, recognized at a glance.

A request that goes on as the client's own bytes is read for two reasons: to know
whom it is for, and to refuse what is wrong with it in the client's dialect.  Here
both are done by one typed decode, in C.  What the types below admit,
:func:`~atomr_infer.wire.openai.chat_request.parse_chat_request` takes as well, with
the same meaning; what they do not admit may still be right, and is read by that.

Pure.

Source: OpenAI API reference, "Create chat completion".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from atomr_infer.model.batch import ExecuteBatch, Sampling
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.source import Source
from atomr_infer.wire.ingress import Asked
from atomr_infer.wire.openai.chat_request import SEEDS

if TYPE_CHECKING:
    from atomr_infer.wire.ingress import Call

_MAX_NAME = 256

# Written so, a second ``model`` would not be found as text.
_ESCAPED_LETTERS = (b"\\u004", b"\\u006")

_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_Unit = Annotated[float, Meta(ge=0, le=1)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Tokens = Annotated[int, Meta(ge=1, le=2**31)]
_Word = Annotated[str, Meta(min_length=1)]
_Url = Annotated[str, Meta(pattern=r"^(https?://|data:[^,]*;base64,)")]
_Object = dict[str, Raw]
_Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class _Cache(Struct):
    ttl: str | None = None


class _Text(Struct, tag_field="type", tag="text"):
    text: str
    cache_control: _Cache | None = None


class _Where(Struct):
    url: _Url
    detail: str | None = None


class _Image(Struct, tag_field="type", tag="image_url"):
    image_url: _Where
    cache_control: _Cache | None = None


class _System(Struct, tag_field="role", tag="system"):
    content: str | list[_Text]
    name: str | None = None


class _Developer(_System, tag_field="role", tag="developer"):
    pass


class _User(Struct, tag_field="role", tag="user"):
    content: str | list[_Text | _Image]
    name: str | None = None


class _Function(Struct):
    name: str
    arguments: str | None = None


class _ToolCall(Struct, forbid_unknown_fields=True):
    id: str
    function: _Function
    type: Literal["function"] | None = None
    index: int | None = None


class _Assistant(Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True):
    content: str | list[_Text] | None = None
    tool_calls: list[_ToolCall] | None = None
    refusal: str | None = None
    name: str | None = None


class _ToolResult(Struct, tag_field="role", tag="tool"):
    content: str | list[_Text]
    tool_call_id: str
    name: str | None = None


class _Declared(Struct):
    name: _Word
    description: str | None = None
    parameters: _Object | None = None
    strict: bool | None = None
    cache_control: _Cache | None = None


class _Tool(Struct, tag_field="type", tag="function"):
    function: _Declared
    cache_control: _Cache | None = None


class _Chosen(Struct, tag_field="type", tag="function"):
    function: _Function


class _AsText(Struct, tag_field="type", tag="text"):
    pass


class _AsJson(Struct, tag_field="type", tag="json_object"):
    pass


class _Schema(Struct):
    schema: _Object
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class _AsSchema(Struct, tag_field="type", tag="json_schema"):
    json_schema: _Schema


class _StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None


_Message = _System | _Developer | _User | _Assistant | _ToolResult


# Nobody keeps one: ``gc=False`` spares the collector the tree.
class _Request(Struct, forbid_unknown_fields=True, gc=False):
    model: _Word
    messages: Annotated[list[_Message], Meta(min_length=1, max_length=10_000)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: _Unit | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    stop: _Word | list[_Word] | None = None
    seed: int | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Chosen | None = None
    parallel_tool_calls: bool | None = None
    response_format: _AsText | _AsJson | _AsSchema | None = None
    reasoning_effort: _Effort | None = None
    user: str | None = None
    # What is not modelled goes on as it is.
    logit_bias: Any = None
    metadata: dict[str, str] | None = None
    modalities: Any = None
    prediction: Any = None
    prompt_cache_key: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    verbosity: Any = None


_decode = msgspec.json.Decoder(_Request).decode

_ONE = Sampling()


def glance_at_chat_request(call: Call) -> Asked | None:
    """Return a request without its conversation; None: it must be read whole.

    Its ``batch`` says whom it is for and how it is answered, and holds the
    client's bytes; ``messages`` is empty.
    """
    body = call.body
    try:
        request = _decode(body)
    except _ERRORS:
        return None
    model, stream = request.model, request.stream or False
    if len(model) > _MAX_NAME or not model.isprintable():
        return None
    capital, small = _ESCAPED_LETTERS
    if body.count(b'"model"') != 1 or capital in body or small in body:
        return None  # it may stand twice
    if request.metadata is not None and "tags" in request.metadata:
        return None  # some servers choose a model by them
    if _is_at_odds(request):
        return None
    options = request.stream_options
    batch = ExecuteBatch(
        request_id=call.request_id,
        model=model,
        messages=(),
        sampling=_sampling(request),
        stream=stream,
        dialect=Dialect.OPENAI_CHAT,
        source=Source(Dialect.OPENAI_CHAT, body, model, sole=True),
        priority=call.visitor.priority,
        asker=call.visitor.asker,
    )
    asked_usage = options is not None and bool(options.include_usage)
    return Asked(batch=batch, include_usage=asked_usage)


def _is_at_odds(request: _Request) -> bool:
    """Whether members do not go together, or one is beyond what types can bound."""
    least, most = SEEDS
    return (
        (request.stream_options is not None and not request.stream)
        or bool(request.top_logprobs and not request.logprobs)
        or (request.seed is not None and not least <= request.seed <= most)
    )


def _sampling(request: _Request) -> Sampling:
    """Return how long the answers may be: what limits and budgets ask for."""
    most = request.max_completion_tokens or request.max_tokens
    if most is None and request.n in (None, 1):
        return _ONE
    return Sampling(max_tokens=most, n=request.n or 1)
