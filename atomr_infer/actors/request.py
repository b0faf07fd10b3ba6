"""What code of the user's is asked: a request in its simple form.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import UnsupportedFeatureError
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.parts import ReasoningPart, RefusalPart, TextPart

if TYPE_CHECKING:
    from atomr_infer.model.batch import Message


@attrs.frozen(kw_only=True)
class Request:
    """A request for a text.

    Attributes:
        text: what was said last; of a bare completion, what is to be continued.
        messages: the conversation, a mapping with ``role`` and ``content`` each.
        is_chat: whether it is a conversation, and no bare text to continue.
        model: what is asked for: the deployment's ``model``, or the client's name.
        max_tokens: the most tokens of the answer; None: no bound.
        temperature: as the client says it; None: it does not.
        top_p: the same.
        top_k: the same.
        seed: the same.
        stop: texts that end the answer; they are looked for in any case.
        id: the request's id, as it stands in the log.
        batch: the whole request.
    """

    text: str
    messages: tuple[Mapping[str, str], ...]
    is_chat: bool
    model: str
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    stop: tuple[str, ...]
    id: str
    batch: ExecuteBatch = attrs.field(repr=False)


def request_of(batch: ExecuteBatch) -> Request:
    """Return a request in its simple form.

    Raises:
        UnsupportedFeatureError: a message holds what is not text.
    """
    sampling = batch.sampling
    turns = tuple(_turn(message) for message in batch.messages)
    last = turns[-1]["content"] if turns else ""
    return Request(
        text=last if batch.prompt is None else batch.prompt,
        messages=turns,
        is_chat=batch.prompt is None,
        model=batch.model,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        stop=sampling.stop,
        id=batch.request_id,
        batch=batch,
    )


def _turn(message: Message) -> Mapping[str, str]:
    for part in message.content:
        if not isinstance(part, TextPart | RefusalPart | ReasoningPart):
            raise UnsupportedFeatureError(
                f"this model reads text only, not {type(part).__name__}",
                code="unsupported_parameter",
                param="messages",
            )
    return {"role": message.role.value, "content": message.text}
