"""What a fake upstream understands of a chat completion request.

Pure.
"""

from __future__ import annotations

import attrs
import msgspec


@attrs.frozen(kw_only=True)
class ChatCall:
    """What of a chat completion request the fake looks at.

    Attributes:
        model: as asked for.
        stream: True for events.
        include_usage: True when a stream shall end with usage.
        n: answers.
        max_tokens: bound of each answer; None: none.
        stop: texts that end an answer.
        prompt_tokens: words in all messages: a fake's tokens.
    """

    model: str
    stream: bool
    include_usage: bool
    n: int
    max_tokens: int | None
    stop: tuple[str, ...]
    prompt_tokens: int


def parse_call(body: bytes) -> ChatCall | None:
    """Return the call that a request's body is; None when it is not one."""
    try:
        members = msgspec.json.decode(body)
        messages = members["messages"]
        options = members.get("stream_options") or {}
        limit = members.get("max_completion_tokens") or members.get("max_tokens")
        return ChatCall(
            model=members["model"],
            stream=bool(members.get("stream")),
            include_usage=bool(options.get("include_usage")),
            n=members.get("n") or 1,
            max_tokens=limit,
            stop=_stop(members.get("stop")),
            prompt_tokens=sum(_words(message["content"]) for message in messages),
        )
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    except (KeyError, TypeError, AttributeError):
        return None


def _stop(value: str | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _words(content: object) -> int:
    if isinstance(content, str):
        return len(content.split())
    if isinstance(content, list):
        return sum(_words(part.get("text", "")) for part in content)
    return 0
