"""Read a chat completion request: OpenAI's JSON to the canonical form.

One pass takes the body apart into raw members; each known member is then
decoded with its own type, so that an error names the member (``param``), and
each unknown one is kept as raw JSON.  Nothing is dropped here: what a runtime
cannot do is refused or reported by ``atomr_infer.model.capabilities``.

Pure.

Source: OpenAI API reference, "Create chat completion".
"""

from __future__ import annotations

from typing import TypeVar

import attrs
import msgspec
from msgspec import Raw

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.batch import (
    Message,
    RawJson,
    RawPart,
    Role,
    Sampling,
    TextPart,
)

T = TypeVar("T")

_MAX_NAME = 256
_MAX_N = 128  # OpenAI's own bound

_members = msgspec.json.Decoder(dict[str, Raw])


@attrs.frozen(kw_only=True)
class ChatRequest:
    """A chat completion as a client asked for it.

    Attributes:
        model: the public model name.
        messages: the conversation, at least one.
        sampling: how tokens are chosen.
        stream: True for server-sent events.
        include_usage: True when a stream shall end with a usage chunk.
        extra: members that the canonical form does not model, as raw JSON.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    stream: bool = False
    include_usage: bool = False
    extra: dict[str, RawJson] = attrs.field(factory=dict, hash=False)


def parse_chat_request(body: bytes) -> ChatRequest:
    """Return the request that ``body`` holds.

    Args:
        body: the HTTP body, JSON in UTF-8.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    members = _object(body)
    model = _required(members, "model", str, "a string")
    if not model:
        raise _invalid("model", "must not be empty")
    if len(model) > _MAX_NAME or not model.isprintable():
        # It goes into logs and errors, and is compared with every name served.
        raise _invalid("model", f"must be at most {_MAX_NAME} printable characters")
    messages = _messages(members)
    stream = _optional(members, "stream", bool, "true or false") or False
    return ChatRequest(
        model=model,
        messages=messages,
        sampling=_sampling(members),
        stream=stream,
        include_usage=_include_usage(members, stream=stream),
        extra={name: bytes(raw) for name, raw in members.items()},
    )


def _object(body: bytes) -> dict[str, Raw]:
    try:
        return _members.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(
            "the request body must be a JSON object with 'model' and 'messages'"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"the request body is not valid JSON: {error}", code="invalid_json"
        ) from error
    except RecursionError as error:
        raise InvalidRequestError("the request body is nested too deeply") from error


def _invalid(param: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"'{param}' {problem}", param=param)


def _decode(param: str, raw: Raw, kind: type[T], wanted: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        shown = bytes(raw)[:60].decode("utf-8", "replace")
        raise _invalid(param, f"must be {wanted}, not {shown}") from error


def _required(members: dict[str, Raw], name: str, kind: type[T], wanted: str) -> T:
    raw = members.pop(name, None)
    if raw is None:
        raise _invalid(name, "is required")
    return _decode(name, raw, kind, wanted)


def _optional(
    members: dict[str, Raw], name: str, kind: type[T], wanted: str
) -> T | None:
    raw = members.pop(name, None)
    if raw is None or bytes(raw) == b"null":
        return None
    return _decode(name, raw, kind, wanted)


def _include_usage(members: dict[str, Raw], *, stream: bool) -> bool:
    raw = members.get("stream_options")
    if raw is None or bytes(raw) == b"null":
        members.pop("stream_options", None)
        return False
    if not stream:
        raise _invalid("stream_options", "is only allowed when 'stream' is true")
    options = _decode("stream_options", raw, dict[str, Raw], "an object")
    asked = _optional(options, "include_usage", bool, "true or false")
    if options:
        # Other options are the upstream's; include_usage is answered here.
        members["stream_options"] = Raw(msgspec.json.encode(options))
    else:
        del members["stream_options"]
    return bool(asked)


# --- sampling ---------------------------------------------------------------


def _sampling(members: dict[str, Raw]) -> Sampling:
    spelled_new = "max_completion_tokens" in members
    max_tokens = _max_tokens(members)
    sampling = Sampling(
        temperature=_number(members, "temperature", 0, 2),
        top_p=_number(members, "top_p", 0, 1),
        max_tokens=max_tokens,
        stop=_stop(members),
        seed=_optional(members, "seed", int, "a whole number"),
        presence_penalty=_number(members, "presence_penalty", -2, 2),
        frequency_penalty=_number(members, "frequency_penalty", -2, 2),
        n=_whole(members, "n", 1, _MAX_N) or 1,
    )
    if spelled_new and max_tokens is not None:
        # Upstreams differ in which spelling they take; keep the client's.
        members["max_completion_tokens"] = Raw(str(max_tokens).encode())
    return sampling


def _max_tokens(members: dict[str, Raw]) -> int | None:
    old = _whole(members, "max_tokens", 1, 2**31)
    new = _whole(members, "max_completion_tokens", 1, 2**31)
    return old if new is None else new


def _number(
    members: dict[str, Raw], name: str, low: float, high: float
) -> float | None:
    value = _optional(members, name, float, "a number")
    if value is not None and not low <= value <= high:
        raise _invalid(name, f"must be between {low} and {high}, not {value:g}")
    return value


def _whole(members: dict[str, Raw], name: str, low: int, high: int) -> int | None:
    value = _optional(members, name, int, "a whole number")
    if value is not None and not low <= value <= high:
        raise _invalid(name, f"must be between {low} and {high}, not {value}")
    return value


def _stop(members: dict[str, Raw]) -> tuple[str, ...]:
    raw = members.pop("stop", None)
    if raw is None or bytes(raw) == b"null":
        return ()
    if bytes(raw).startswith(b'"'):
        stops = [_decode("stop", raw, str, "a string or a list of strings")]
    else:
        stops = _decode("stop", raw, list[str], "a string or a list of strings")
    if not all(stops):
        raise _invalid("stop", "must not contain an empty string")
    return tuple(stops)


# --- messages ---------------------------------------------------------------


def _messages(members: dict[str, Raw]) -> tuple[Message, ...]:
    raws = _required(members, "messages", list[Raw], "a list of messages")
    if not raws:
        raise _invalid("messages", "must hold at least one message")
    return tuple(_message(f"messages[{i}]", raw) for i, raw in enumerate(raws))


def _message(param: str, raw: Raw) -> Message:
    members = _decode(param, raw, dict[str, Raw], "an object")
    role_name = _nested(param, members, "role", str, "a string")
    try:
        role = Role(role_name)
    except ValueError as error:
        known = ", ".join(r.value for r in Role)
        raise _invalid(
            f"{param}.role", f"must be one of {known}, not {role_name!r}"
        ) from error
    content = _content(f"{param}.content", members.pop("content", None))
    if content is None and role is not Role.ASSISTANT:
        raise _invalid(f"{param}.content", "is required")
    return Message(role, content, {k: bytes(v) for k, v in members.items()})


def _nested(
    param: str, members: dict[str, Raw], name: str, kind: type[T], wanted: str
) -> T:
    raw = members.pop(name, None)
    if raw is None:
        raise _invalid(f"{param}.{name}", "is required")
    return _decode(f"{param}.{name}", raw, kind, wanted)


def _content(
    param: str, raw: Raw | None
) -> str | tuple[TextPart | RawPart, ...] | None:
    if raw is None or bytes(raw) == b"null":
        return None
    if bytes(raw).startswith(b'"'):
        return _decode(param, raw, str, "a string")
    parts = _decode(param, raw, list[Raw], "a string or a list of parts")
    return tuple(_part(f"{param}[{i}]", part) for i, part in enumerate(parts))


def _part(param: str, raw: Raw) -> TextPart | RawPart:
    members = _decode(param, raw, dict[str, Raw], "an object")
    kind = _nested(param, members, "type", str, "a string")
    if kind == "text" and set(members) == {"text"}:
        return TextPart(_nested(param, members, "text", str, "a string"))
    if kind == "text" and "text" not in members:
        raise _invalid(f"{param}.text", "is required")
    return RawPart(kind, bytes(raw))
