"""Read a request for a response: OpenAI's newer JSON to the canonical form.

Pure.

Source: OpenAI API reference, "Create a model response".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.asks import FormatKind, Reasoning, ResponseFormat
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.source import Source
from atomr_infer.wire.fields import Fields, invalid
from atomr_infer.wire.ingress import Asked
from atomr_infer.wire.openai.chat_asks import (
    effort_of,
    json_schema_format,
    parse_tool_choice,
)
from atomr_infer.wire.openai.chat_request import model_name
from atomr_infer.wire.openai.responses_input import parse_input
from atomr_infer.wire.openai.responses_tools import parse_tools

if TYPE_CHECKING:
    from atomr_infer.wire.ingress import Call

_MAX_TOP_LOGPROBS = 20

_REFUSED = {
    "background": "runs in the background are not served here",
    "conversation": "conversations are not stored here; use 'previous_response_id'",
    "prompt": "stored prompts are the provider's; send the text as 'input'",
}
"""What would silently change the answer if it were left out."""


def parse_response_request(call: Call) -> Asked:
    """Return the request that a call's body holds.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    root = Fields.of_body(call.body, wanted="with 'model' and 'input'")
    model = model_name(root)
    messages = (*_instructions(root), *parse_input(root, before=call.previous))
    stream = root.flag("stream") or False
    previous = root.text("previous_response_id")
    if previous is not None and call.previous is None:
        # Not stored here: whoever does not pass it on has to refuse it.
        root.put("previous_response_id", previous)
    stored = root.flag("store")
    # What goes on from our store means nothing to the upstream.
    own = Source(Dialect.OPENAI_RESPONSES, call.body, model)
    source = own if call.previous is None else None
    tools, approximated = parse_tools(root)
    batch = ExecuteBatch(
        request_id=call.request_id,
        model=model,
        messages=messages,
        sampling=_sampling(root),
        stream=stream,
        tools=tools,
        tool_choice=parse_tool_choice(root, hosted=True),
        parallel_tool_calls=root.flag("parallel_tool_calls"),
        response_format=_format(root),
        reasoning=_reasoning(root),
        user=root.text("user"),
        dialect=Dialect.OPENAI_RESPONSES,
        extra=_extra(root),
        source=source,
    )
    return Asked(
        batch=batch,
        warnings=approximated,
        previous=previous,
        store=stored is not False,
        echo=call.body,
    )


def _extra(root: Fields) -> dict[str, bytes]:
    rest = root.rest()
    for name, why in _REFUSED.items():
        if rest.get(name, b"null") not in (b"null", b"false"):
            raise invalid(name, f"is not supported: {why}")
    options = ("stream_options", "include", "truncation")
    return {name: raw for name, raw in rest.items() if name not in options}


def _instructions(root: Fields) -> tuple[Message, ...]:
    text = root.text("instructions")
    return () if text is None else (Message(Role.SYSTEM, text),)


def _sampling(root: Fields) -> Sampling:
    return Sampling(
        temperature=root.number("temperature", 0, 2),
        top_p=root.number("top_p", 0, 1),
        max_tokens=root.whole("max_output_tokens", 1, 2**31),
        top_logprobs=root.whole("top_logprobs", 0, _MAX_TOP_LOGPROBS),
    )


def _format(root: Fields) -> ResponseFormat | None:
    text = root.nested("text")
    fields = None if text is None else text.nested("format")
    if fields is None:
        return None
    kind = fields.required("type", str, "a string")
    if kind == FormatKind.JSON_SCHEMA.value:
        return json_schema_format(fields)
    if kind not in (FormatKind.TEXT.value, FormatKind.JSON_OBJECT.value):
        problem = f"must be text, json_object or json_schema, not {kind!r}"
        raise invalid(fields.path("type"), problem)
    return ResponseFormat(kind=FormatKind(kind))


def _reasoning(root: Fields) -> Reasoning | None:
    fields = root.nested("reasoning")
    if fields is None:
        return None
    effort = fields.text("effort")
    summary = fields.text("summary") or fields.text("generate_summary")
    return Reasoning(
        effort=None if effort is None else effort_of(fields, effort, "effort"),
        include=None if summary is None else True,
        summary=summary,
    )
