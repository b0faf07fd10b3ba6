"""How many tokens a prompt has, when nobody who knows can be asked.

Agents decide by this number when to compact a conversation; one that is too
small lets them run into the model's limit.  So it is an upper estimate: text in
any language and code have at least three bytes to a token in the tokenizers of
the large providers, but for long numbers and rare scripts.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.asks import RawTool
from atomr_infer.model.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Inline,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.asks import Tool
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.parts import Part

_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 8
_TOKENS_PER_TOOL = 16
_TOKENS_PER_IMAGE = 1600  # the most that Anthropic counts for one
_BYTES_PER_FILE_TOKEN = 12  # of base64: a dense page of a PDF


def estimate_prompt_tokens(batch: ExecuteBatch) -> int:
    """Return about how many tokens a prompt has, rather too many than too few.

    >>> from atomr_infer.model.batch import ExecuteBatch, Message, Role
    >>> ask = Message(Role.USER, "to be or not to be")
    >>> estimate_prompt_tokens(ExecuteBatch(request_id="", model="", messages=(ask,)))
    14
    """
    messages = sum(
        _TOKENS_PER_MESSAGE + _parts(message.content) for message in batch.messages
    )
    return messages + sum(map(_tool, batch.tools))


def estimate_input_tokens(text: str | tuple[int, ...]) -> int:
    """Return about how many tokens a text to embed has; token ids are counted.

    >>> estimate_input_tokens("to be or not to be"), estimate_input_tokens((17, 4))
    (6, 2)
    """
    return _text(text) if isinstance(text, str) else len(text)


def _text(text: str | bytes) -> int:
    size = len(text) if isinstance(text, bytes) else len(text.encode())
    return -(-size // _BYTES_PER_TOKEN)


def _parts(parts: Iterable[Part]) -> int:
    return sum(map(_part, parts))


def _part(part: Part) -> int:
    match part:
        case TextPart() | RefusalPart() | ReasoningPart():
            return _text(part.text)
        case ToolCallPart():
            return _text(part.name) + _text(part.arguments) + _TOKENS_PER_MESSAGE
        case ToolResultPart():
            return _parts(part.content) + _TOKENS_PER_MESSAGE
        case ImagePart() | AudioPart() | FilePart():
            return _media(part)
        case RawPart():
            return _text(part.json)


def _media(part: ImagePart | AudioPart | FilePart) -> int:
    if isinstance(part, ImagePart) or not isinstance(part.source, Inline):
        return _TOKENS_PER_IMAGE
    return _TOKENS_PER_IMAGE + len(part.source.base64) // _BYTES_PER_FILE_TOKEN


def _tool(tool: Tool | RawTool) -> int:
    if isinstance(tool, RawTool):
        return _TOKENS_PER_TOOL + _text(tool.json)
    words = _text(tool.name) + _text(tool.description or "")
    return _TOKENS_PER_TOOL + words + _text(tool.parameters or b"")
