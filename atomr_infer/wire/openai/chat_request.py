"""Read a chat completion request: OpenAI's JSON to the canonical form.

Each known member is decoded with its own type, so that an error names the
member (``param``), and each unknown one is kept as raw JSON.  Nothing is
dropped here: what a runtime cannot do is refused or reported by
``atomr_infer.model.capabilities``.

Pure.

Source: OpenAI API reference, "Create chat completion".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.batch import ExecuteBatch, Sampling
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.source import Source
from atomr_infer.wire.fields import Fields, decode, invalid
from atomr_infer.wire.ingress import Asked
from atomr_infer.wire.openai.chat_asks import (
    parse_reasoning,
    parse_response_format,
    parse_tool_choice,
    parse_tools,
)
from atomr_infer.wire.openai.chat_messages import parse_messages

if TYPE_CHECKING:
    from atomr_infer.wire.ingress import Call

MAX_NAME = 256
"""Characters of a model's name."""
SEEDS = (-(2**63), 2**64 - 1)
"""What a seed is between: a whole number of 64 bits, with a sign or without."""
_MAX_N = 128  # OpenAI's own bound
_MAX_MESSAGES = 10_000
_MAX_TOP_LOGPROBS = 20


def parse_chat_request(call: Call) -> Asked:
    """Return the request that a call's body holds.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    root = Fields.of_body(call.body, wanted="with 'model' and 'messages'")
    model = model_name(root)
    messages = parse_messages(root)
    if len(messages) > _MAX_MESSAGES:
        raise invalid("messages", f"must hold at most {_MAX_MESSAGES} messages")
    stream = root.flag("stream") or False
    include_usage = take_include_usage(root, stream=stream)
    batch = ExecuteBatch(
        request_id=call.request_id,
        model=model,
        messages=messages,
        sampling=_sampling(root),
        stream=stream,
        tools=parse_tools(root),
        tool_choice=parse_tool_choice(root),
        parallel_tool_calls=root.flag("parallel_tool_calls"),
        response_format=parse_response_format(root),
        reasoning=parse_reasoning(root),
        user=root.text("user"),
        dialect=Dialect.OPENAI_CHAT,
        extra=root.rest(),
        source=Source(Dialect.OPENAI_CHAT, call.body, model),
    )
    return Asked(batch=batch, include_usage=include_usage)


def model_name(root: Fields) -> str:
    """Take the ``model`` of a request."""
    model = root.required("model", str, "a string")
    if not model:
        raise invalid("model", "must not be empty")
    if len(model) > MAX_NAME or not model.isprintable():
        # It goes into logs and errors, and is compared with every name served.
        raise invalid("model", f"must be at most {MAX_NAME} printable characters")
    root.refuse_other_model()
    return model


def take_include_usage(root: Fields, *, stream: bool) -> bool:
    """Take ``stream_options.include_usage``; other options stay in the rest."""
    options = root.nested("stream_options")
    if options is None:
        return False
    if not stream:
        raise invalid("stream_options", "is only allowed when 'stream' is true")
    asked = options.flag("include_usage")
    rest = options.rest()
    if rest:
        # Other options are the upstream's; include_usage is answered here.
        root.put_raw("stream_options", rest)
    return bool(asked)


def _sampling(root: Fields) -> Sampling:
    spelled_new = "max_completion_tokens" in root
    max_tokens = _max_tokens(root)
    sampling = Sampling(
        temperature=root.number("temperature", 0, 2),
        top_p=root.number("top_p", 0, 1),
        top_k=root.whole("top_k", -1, 2**31),
        max_tokens=max_tokens,
        stop=take_stop(root),
        seed=root.whole("seed", *SEEDS),
        presence_penalty=root.number("presence_penalty", -2, 2),
        frequency_penalty=root.number("frequency_penalty", -2, 2),
        n=root.whole("n", 1, _MAX_N) or 1,
        top_logprobs=_logprobs(root),
    )
    if spelled_new and max_tokens is not None:
        # Upstreams differ in which spelling they take; keep the client's.
        root.put("max_completion_tokens", max_tokens)
    return sampling


def _max_tokens(root: Fields) -> int | None:
    old = root.whole("max_tokens", 1, 2**31)
    new = root.whole("max_completion_tokens", 1, 2**31)
    return old if new is None else new


def _logprobs(root: Fields) -> int | None:
    wanted = root.flag("logprobs") or False
    top = root.whole("top_logprobs", 0, _MAX_TOP_LOGPROBS)
    if top and not wanted:
        raise invalid("top_logprobs", "is only allowed when 'logprobs' is true")
    return (top or 0) if wanted else None


def take_stop(root: Fields) -> tuple[str, ...]:
    """Take ``stop``: a string or a list of them."""
    raw = root.raw("stop")
    if raw is None:
        return ()
    wanted = "a string or a list of strings"
    if bytes(raw).startswith(b'"'):
        stops = [decode("stop", raw, str, wanted=wanted)]
    else:
        stops = decode("stop", raw, list[str], wanted=wanted)
    if not all(stops):
        raise invalid("stop", "must not contain an empty string")
    return tuple(stops)
