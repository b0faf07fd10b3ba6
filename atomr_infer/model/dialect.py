"""The wire dialects that clients and providers speak.

Pure.
"""

from __future__ import annotations

from enum import Enum


class Dialect(Enum):
    """A request and answer format, named by who defined it and where it is used."""

    OPENAI_CHAT = "openai-chat"
    OPENAI_COMPLETIONS = "openai-completions"
    OPENAI_RESPONSES = "openai-responses"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    OPEN_INFERENCE = "open-inference"
