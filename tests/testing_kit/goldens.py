"""Streams of the four dialects, byte for byte, as files that a person can read.

``python -m tests.testing_kit.goldens`` writes them anew from the fakes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstreams.answer import make_answer
from atomr_infer.testing.upstreams.anthropic import AnthropicDialect
from atomr_infer.testing.upstreams.call import Call, Request
from atomr_infer.testing.upstreams.gemini import GeminiDialect
from atomr_infer.testing.upstreams.litellm import LiteLLMDialect
from atomr_infer.testing.upstreams.openai import OpenAIDialect

if TYPE_CHECKING:
    from atomr_infer.testing.upstreams.dialect import Dialect

FOLDER = Path(__file__).parent / "golden"

# What a line reader may trip over is inside of strings: U+2028, U+0085, an
# emoji of four bytes, an escaped line end.
HAPPY = script.Happy(
    reasoning=("Let me ", "see."),
    text="It\u2028is \x85 warm \U0001f600 in\nParis.",
    tool_calls=(
        script.ToolCall(),
        script.ToolCall(name="get_time", arguments=('{"zone":"CE', 'T"}'), id="t_1"),
    ),
    cached_tokens=1,
)

_CHAT = {"model": "m", "messages": [{"role": "user", "content": "one two"}]}
_GEMINI: dict[str, object] = {
    "contents": [{"parts": [{"text": "one two"}]}],
    "generationConfig": {"thinkingConfig": {"includeThoughts": True}},
}

_ASKED: dict[str, tuple[Dialect, str, dict[str, object]]] = {
    "openai-chat": (
        OpenAIDialect(),
        "/v1/chat/completions",
        {**_CHAT, "stream": True, "stream_options": {"include_usage": True}, "n": 2},
    ),
    "openai-completions": (
        OpenAIDialect(),
        "/v1/completions",
        {"model": "m", "prompt": "one two", "stream": True},
    ),
    "openai-responses": (
        OpenAIDialect(),
        "/v1/responses",
        {
            "model": "m",
            "input": "one two",
            "stream": True,
            "reasoning": {"summary": "auto"},
        },
    ),
    "azure-chat": (
        OpenAIDialect(),
        "/openai/deployments/gpt/chat/completions?api-version=2024-10-21",
        {**_CHAT, "stream": True},
    ),
    "litellm-chat": (
        LiteLLMDialect(),
        "/v1/chat/completions",
        {**_CHAT, "stream": True},
    ),
    "anthropic-messages": (
        AnthropicDialect(),
        "/v1/messages",
        {
            **_CHAT,
            "stream": True,
            "max_tokens": 100,
            "thinking": {"type": "adaptive"},
        },
    ),
    "gemini-events": (
        GeminiDialect(),
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        _GEMINI,
    ),
    "gemini-array": (
        GeminiDialect(),
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        _GEMINI,
    ),
}

NAMES = tuple(_ASKED)
EVENT_NAMES = tuple(name for name in NAMES if name != "gemini-array")


def golden(name: str) -> bytes:
    """Return a stream as it is kept."""
    return (FOLDER / f"{name}.txt").read_bytes()


def rendered(name: str) -> bytes:
    """Return a stream as its fake writes it now."""
    dialect, path, members = _ASKED[name]
    path, _, query = path.partition("?")
    key = {"x-api-key": "k", "x-goog-api-key": "k", "anthropic-version": "2026-10-21"}
    request = Request(
        method="POST",
        path=path,
        query=dict(part.split("=") for part in query.split("&") if part),
        headers=key,
        body=msgspec.json.encode(members),
    )
    call = dialect.read(request, ())
    assert isinstance(call, Call)
    frames = dialect.frames(call, make_answer(HAPPY, call), done=True)
    return b"".join(frame.data for frame in frames)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in NAMES:
        (FOLDER / f"{each}.txt").write_bytes(rendered(each))
