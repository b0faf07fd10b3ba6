"""A chat as a program writes it, and the whole answer to it.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias, TypedDict

import attrs

from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    Usage,
)

Conversation: TypeAlias = str | Iterable[Message | Mapping[str, str]]
"""A prompt, or messages: values, or mappings with ``role`` and ``content``."""


class SamplingOptions(TypedDict, total=False):
    """The fields of :class:`~atomr_infer.model.batch.Sampling` as keywords."""

    temperature: float
    top_p: float
    max_tokens: int
    stop: tuple[str, ...]
    seed: int
    presence_penalty: float
    frequency_penalty: float


@attrs.frozen(kw_only=True)
class ChatReply:
    """A whole answer.

    Attributes:
        text: what the model said.
        finish_reason: why it ended.
        usage: tokens; None when the runtime did not say.
        deployment: who answered.
        attempts: tries that it took.
    """

    text: str
    finish_reason: FinishReason | None
    usage: Usage | None
    deployment: str
    attempts: int


def request_of(
    model: str,
    conversation: Conversation,
    sampling: SamplingOptions,
    *,
    stream: bool,
    request_id: str,
) -> ExecuteBatch:
    """Return the request for the answer to a conversation."""
    return ExecuteBatch(
        request_id=request_id,
        model=model,
        messages=_messages(conversation),
        sampling=Sampling(**sampling),
        stream=stream,
    )


def _messages(conversation: Conversation) -> tuple[Message, ...]:
    if isinstance(conversation, str):
        return (Message(Role.USER, conversation),)
    messages = tuple(
        message
        if isinstance(message, Message)
        else Message(Role(message["role"]), message["content"])
        for message in conversation
    )
    if not messages:
        raise ValueError("the conversation is empty; give it at least one message")
    return messages
