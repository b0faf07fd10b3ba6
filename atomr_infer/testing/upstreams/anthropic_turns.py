"""The turns of a conversation with Anthropic: blocks, and what follows what.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.testing.upstreams import anthropic_models as models
from atomr_infer.testing.upstreams.call import Media, Members, words
from atomr_infer.testing.upstreams.checks import (
    Invalid,
    decode_base64,
    objects,
    sniffed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_BLOCKS = {
    "user": ("text", "image", "document", "search_result", "tool_result"),
    "assistant": (
        "text",
        "thinking",
        "redacted_thinking",
        "tool_use",
        "document",
        "server_tool_use",
        "web_search_tool_result",
        "code_execution_tool_result",
    ),
    "system": ("text",),
}


def check_turns(members: Members, *, closed: bool) -> None:
    """Check a request's messages.

    Args:
        members: of the request.
        closed: whether documents of the assistant's and citations of the user's
            are refused, as they are since version 2026-10-21.

    Raises:
        Invalid: as Anthropic says it.
    """
    messages = members["messages"]
    if not isinstance(messages, list):
        raise Invalid("messages: Input should be a valid list")
    if not messages:
        raise Invalid("messages: at least one message is required")
    model = models.generation(members["model"])
    for number, message in enumerate(messages):
        _check_message(number, message, model)
        for place, block in enumerate(objects(message["content"])):
            where = f"messages.{number}.content.{place}"
            _check_block(where, block, role=message["role"], closed=closed)
    if messages[0]["role"] != "user":
        raise Invalid('messages: first message must use the "user" role')
    _check_ends(messages, model)
    _check_tool_turns(messages)


def words_of(content: object) -> int:
    """Return the words of a message's content, tool results included."""
    if isinstance(content, str):
        return words(content)
    return sum(
        words(block.get("text") or "") + words_of(block.get("content"))
        for block in objects(content)
    )


def media_of(content: object) -> Iterator[Media]:
    """Yield what in a message's content is not text."""
    for block in objects(content):
        source = block.get("source")
        if block.get("type") == "tool_result":
            yield from media_of(block.get("content"))
        elif isinstance(source, dict):
            yield _media(source)


def _media(source: Members) -> Media:
    if source["type"] == "base64":
        size = len(decode_base64(source["data"]))
        return Media(source["media_type"], size)
    if source["type"] == "text":
        return Media(source["media_type"], len(str(source["data"]).encode()))
    return Media("", url=source.get("url") or source.get("file_id"))


# --- one message ------------------------------------------------------------


def _check_message(number: int, message: object, model: models.Generation) -> None:
    where = f"messages.{number}"
    if not isinstance(message, dict):
        raise Invalid(f"{where}: Input should be a valid dictionary or object")
    for name in ("role", "content"):
        if name not in message:
            raise Invalid(f"{where}.{name}: Field required")
    for name in message:
        if name not in ("role", "content"):
            raise Invalid(f"{where}.{name}: Extra inputs are not permitted")
    if message["role"] == "system" and model < models.SYSTEM_TURNS:
        raise Invalid(
            'messages: Unexpected role "system". The Messages API accepts a top-level'
            ' `system` parameter, not "system" as an input message role.'
        )
    if message["role"] not in _BLOCKS:
        raise Invalid(f"{where}.role: Input should be 'user' or 'assistant'")
    if not isinstance(message["content"], str | list):
        raise Invalid(f"{where}.content: Input should be a valid string or list")


def _check_block(where: str, block: Members, *, role: str, closed: bool) -> None:
    kind = block.get("type")
    if kind not in _BLOCKS[role]:
        expected = ", ".join(f"'{name}'" for name in _BLOCKS[role])
        raise Invalid(
            f"{where}: Input tag '{kind}' found using 'type' does not match any of the"
            f" expected tags: {expected}"
        )
    match kind:
        case "text":
            _check_text(where, block, cited=closed and role == "user")
        case "image" | "document":
            if closed and role == "assistant":
                raise Invalid(f"{where}: documents are not allowed in assistant turns")
            _check_source(f"{where}.{kind}.source", block, kind=str(kind))
        case "tool_use":
            _check_tool_use(f"{where}.tool_use", block)
        case "tool_result":
            if not isinstance(block.get("tool_use_id"), str):
                raise Invalid(f"{where}.tool_result.tool_use_id: Field required")
        case "thinking":
            _check_thought(where, block)


def _check_text(where: str, block: Members, *, cited: bool) -> None:
    if not isinstance(block.get("text"), str):
        raise Invalid(f"{where}.text.text: Field required")
    if not block["text"]:
        raise Invalid("messages: text content blocks must be non-empty")
    if cited and block.get("citations"):
        raise Invalid(f"{where}.text.citations: must be empty on user text blocks")


def _check_thought(where: str, block: Members) -> None:
    for name in ("thinking", "signature"):
        if not isinstance(block.get(name), str):
            raise Invalid(f"{where}.thinking.{name}: Field required")
    signed = models.signature_of(block["thinking"])
    if block["signature"] not in (signed, models.signature_of("")):
        raise Invalid(f"{where}: Invalid `signature` in `thinking` block")


def _check_tool_use(where: str, block: Members) -> None:
    if not isinstance(block.get("input"), dict):
        raise Invalid(f"{where}.input: Input should be a valid dictionary")
    for name in ("id", "name"):
        value = block.get(name)
        if not isinstance(value, str):
            raise Invalid(f"{where}.{name}: Field required")
        if not models.is_name(value):
            raise Invalid(
                f"{where}.{name}: String should match pattern '{models.NAME_PATTERN}'"
            )


def _check_source(where: str, block: Members, *, kind: str) -> None:
    source = block.get("source")
    if not isinstance(source, dict) or "type" not in source:
        raise Invalid(f"{where}: Field required")
    if source["type"] == "base64":
        _check_bytes(f"{where}.base64", source, kind=kind)
    elif source["type"] == "url":
        if not str(source.get("url", "")).startswith("https://"):
            raise Invalid(f"{where}.url: Only HTTPS URLs are supported.")
    elif source["type"] not in ("file", "text", "content"):
        raise Invalid(f"{where}: Input tag '{source['type']}' does not match")


def _check_bytes(where: str, source: Members, *, kind: str) -> None:
    allowed = _IMAGES if kind == "image" else ("application/pdf",)
    declared = source.get("media_type")
    if declared not in allowed:
        raise Invalid(
            f"{where}.media_type: Input should be"
            f" {', '.join(repr(name) for name in allowed)}"
        )
    try:
        data = decode_base64(source.get("data"))
    except Invalid as error:
        raise Invalid(f"{where}.data: Invalid base64 data") from error
    if sniffed(data) not in (None, declared):
        raise Invalid(
            f"{where}.data: Image does not match the provided media type {declared}"
        )


# --- what follows what ------------------------------------------------------


def _check_ends(messages: list[Members], model: models.Generation) -> None:
    last = messages[-1]
    for number, message in enumerate(messages):
        final = message is last and message["role"] == "assistant"
        if not message["content"] and not final:
            raise Invalid(
                f"messages.{number}: all messages must have non-empty content except"
                " for the optional final assistant message"
            )
    if last["role"] != "assistant":
        return
    if model >= models.NO_PREFILL:
        raise Invalid(
            "This model does not support assistant message prefill. The conversation"
            " must end with a user message."
        )
    text = last["content"]
    if isinstance(text, list):
        text = text[-1].get("text", "") if text else ""
    if text != text.rstrip():
        raise Invalid(
            "messages: final assistant content cannot end with trailing whitespace"
        )


def _check_tool_turns(messages: list[Members]) -> None:
    """Each call is answered in the next message, and nothing else is answered."""
    open_ids: list[str] = []
    for number, message in enumerate(messages):
        blocks = objects(message["content"])
        results = [b["tool_use_id"] for b in blocks if b["type"] == "tool_result"]
        for place, result in enumerate(results):
            if result not in open_ids:
                raise Invalid(
                    f"messages.{number}.content.{place}: unexpected `tool_use_id` found"
                    f" in `tool_result` blocks: {result}. Each `tool_result` block must"
                    " have a corresponding `tool_use` block in the previous message."
                )
            if result in results[:place]:
                raise Invalid(
                    f"messages.{number}.content.{place}: each tool_use must have a"
                    " single result. Found multiple `tool_result` blocks with id:"
                    f" {result}"
                )
        _refuse_open([i for i in open_ids if i not in results], number - 1)
        if results and blocks[0]["type"] != "tool_result":
            # Text in front of a result hides it from the call that it answers.
            _refuse_open(results, number - 1)
        open_ids = [str(b["id"]) for b in blocks if b["type"] == "tool_use"]
    _refuse_open(open_ids, len(messages) - 1)


def _refuse_open(open_ids: list[str], number: int) -> None:
    if open_ids:
        raise Invalid(
            f"messages.{number}: `tool_use` ids were found without `tool_result` blocks"
            f" immediately after: {', '.join(open_ids)}. Each `tool_use` block must"
            " have a corresponding `tool_result` block in the next message."
        )
