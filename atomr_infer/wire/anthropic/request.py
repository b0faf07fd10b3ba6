"""Read a Messages request: Anthropic's JSON to the canonical form.

Each known member is decoded with its own type, so that an error names it, and
each unknown one is kept as raw JSON.  The client's bytes go along, so that a
provider of the same dialect gets them unchanged.

Pure.

Source: Anthropic API reference, "Create a Message", "Count tokens in a Message".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.batch import ExecuteBatch, Sampling
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.source import Source
from atomr_infer.wire.anthropic.asks import (
    parse_output_config,
    parse_thinking,
    parse_tool_choice,
    parse_tools,
)
from atomr_infer.wire.anthropic.blocks import Notes, parse_messages, parse_system
from atomr_infer.wire.anthropic.versions import (
    HEADER,
    kept_headers,
    takes_sampling,
    version_of,
)
from atomr_infer.wire.fields import Fields, invalid
from atomr_infer.wire.ingress import Asked

if TYPE_CHECKING:
    from atomr_infer.wire.ingress import Call

COUNT_TOKENS = "count_tokens"
"""The action of ``/v1/messages/count_tokens``."""

_MAX_NAME = 256
_MAX_MESSAGES = 100_000  # Anthropic's own bound
_MAX_TOKENS = 2**31
_SAMPLING_MEMBERS = ("temperature", "top_p", "top_k")


def parse_request(call: Call) -> Asked:
    """Return the request that a call holds.

    Args:
        call: its ``action`` is :data:`COUNT_TOKENS` when only the prompt is
            wanted counted; ``max_tokens`` need not be given then.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    version = version_of(call.headers.get(HEADER))
    root = Fields.of_body(call.body, wanted="with 'model' and 'messages'")
    notes = Notes()
    model = _model(root)
    messages = parse_messages(root, version=version, notes=notes)
    if len(messages) > _MAX_MESSAGES:
        raise invalid("messages", f"must hold at most {_MAX_MESSAGES} messages")
    effort, form = parse_output_config(root, notes)
    tools = parse_tools(root, notes)
    choice, parallel = parse_tool_choice(root)
    batch = ExecuteBatch(
        request_id=call.request_id,
        model=model,
        messages=(*parse_system(root, notes), *messages),
        sampling=_sampling(root, version, counting=call.action == COUNT_TOKENS),
        stream=root.flag("stream") or False,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=form,
        reasoning=parse_thinking(root, effort),
        user=_user(root, notes),
        dialect=Dialect.ANTHROPIC,
        extra=root.rest(),
        client_headers=kept_headers(call.headers),
        source=Source(Dialect.ANTHROPIC, call.body, model),
    )
    dropped = tuple(f"{place} was dropped" for place in notes.dropped)
    return Asked(batch=batch, warnings=dropped)


def _model(root: Fields) -> str:
    model = root.required("model", str, "a string")
    if not model:
        raise invalid("model", "must not be empty")
    if len(model) > _MAX_NAME or not model.isprintable():
        # It goes into logs and errors, and is compared with every name served.
        raise invalid("model", f"must be at most {_MAX_NAME} printable characters")
    root.refuse_other_model()
    return model


def _sampling(root: Fields, version: str, *, counting: bool) -> Sampling:
    if not takes_sampling(version):
        for name in _SAMPLING_MEMBERS:
            if name in root:
                problem = f"is no member of version {version} of the API; leave it out"
                raise invalid(name, problem)
    max_tokens = root.whole("max_tokens", 0, _MAX_TOKENS)
    if max_tokens is None and not counting:
        raise invalid("max_tokens", "is required")
    return Sampling(
        temperature=root.number("temperature", 0, 1),
        top_p=root.number("top_p", 0, 1),
        top_k=root.whole("top_k", -1, 2**31),
        max_tokens=max_tokens,
        stop=_stop(root),
    )


def _stop(root: Fields) -> tuple[str, ...]:
    stops = root.optional("stop_sequences", list[str], "a list of strings") or []
    if not all(stop.strip() for stop in stops):
        raise invalid("stop_sequences", "must hold more than white space in each one")
    return tuple(stops)


def _user(root: Fields, notes: Notes) -> str | None:
    metadata = root.nested("metadata")
    if metadata is None:
        return None
    user = metadata.text("user_id")
    notes.drop_rest(metadata)
    return user
