"""What a fake upstream understood of a request, in no dialect's words.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import attrs

Members = Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Request:
    """A request as it arrived, its path taken apart.

    Attributes:
        method: ``POST``, ...
        path: without its query, decoded.
        query: the first value of each name.
        headers: by lower-case name.
        body: the whole body.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Operation(Enum):
    """What is asked for."""

    GENERATE = "generate"
    EMBED = "embed"
    COUNT = "count"
    MODELS = "models"


@attrs.frozen
class Media:
    """A part of a prompt that is not text.

    Attributes:
        type: its media type; "" where only an address was given.
        size_bytes: of the part, decoded; 0 where only an address was given.
        url: its address; None: it came in the request.
    """

    type: str
    size_bytes: int = 0
    url: str | None = None


@attrs.frozen(kw_only=True)
class Call:
    """A valid request.

    Attributes:
        operation: what is asked for.
        route: which of the dialect's routes it came by, such as ``responses``.
        model: as asked for.
        members: the body, decoded.
        stream: True for events.
        include_usage: True when a stream shall end with usage.
        n: answers.
        max_tokens: bound of each answer; None: none.
        stop: texts that end an answer.
        prompt_tokens: words of the prompt: a fake's tokens.
        media: what in the prompt is not text, in order.
        schema: JSON Schema that the answer must fit; None: it is text.
        top_logprobs: alternatives of each token's log probability; None: no
            log probabilities are wanted.
        reasoning: True when the client wants to see what the model thinks.
    """

    operation: Operation = Operation.GENERATE
    route: str
    model: str
    members: Members = attrs.field(factory=dict, repr=False)
    stream: bool = False
    include_usage: bool = False
    n: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    prompt_tokens: int = 0
    media: tuple[Media, ...] = ()
    schema: Members | None = None
    top_logprobs: int | None = None
    reasoning: bool = True


def words(text: str) -> int:
    """Return how many words a text has, which are a fake's tokens."""
    return len(text.split())
