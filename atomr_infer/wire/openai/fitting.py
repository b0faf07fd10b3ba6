"""Fit a request to what an OpenAI-like server takes, before it is written.

OpenAI refuses members that it does not know, so what another dialect's client
said in its own way has to be said in OpenAI's or left out: borders of prompt
caches, thoughts that another provider signed, a budget of reasoning tokens.
Compatible servers take more.

A tool's result is text there, and agents' tools return pictures.  Those are shown
by the user, behind the results of the turn.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.asks import Effort, RawTool
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.capabilities import ALL_SAMPLING
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.model.asks import Reasoning, Tool
    from atomr_infer.model.parts import Part

_OWN = (Dialect.OPENAI_CHAT, Dialect.OPENAI_RESPONSES)

# Most reasoning tokens that an effort is taken to stand for.
_BUDGETS = (
    (0, Effort.NONE),
    (1024, Effort.MINIMAL),
    (4096, Effort.LOW),
    (16384, Effort.MEDIUM),
)


_MEDIA = (ImagePart, AudioPart, FilePart)
_BELOW = "(shown below)"


@attrs.frozen(kw_only=True)
class ChatTraits:
    """What a server takes beyond plain chats.

    Attributes:
        sampling: the fields of :class:`Sampling` that it takes.
        effort: whether it takes ``reasoning_effort``.
        extensions: whether it takes members that OpenAI does not know:
            ``cache_control``, ``reasoning_content``, ``extra_content``.
        max_output_tokens: most that the model writes; None: not known.
    """

    sampling: frozenset[str] = ALL_SAMPLING
    effort: bool = True
    extensions: bool = True
    max_output_tokens: int | None = None


@attrs.frozen
class Fitted:
    """A request that the server takes.

    Attributes:
        batch: the request.
        warnings: what was approximated or left out, in one phrase each.
    """

    batch: ExecuteBatch
    warnings: tuple[str, ...] = ()


def fitted(batch: ExecuteBatch, traits: ChatTraits) -> Fitted:
    """Return a request as the server takes it.

    Fields of :class:`Sampling` and a reasoning that a model lacks are left out
    without a warning here: ``check_request`` has named them.
    """
    warnings: list[str] = []
    reasoning = _reasoning(batch.reasoning, traits, warnings)
    shown = _shown_by_users(batch.messages, warnings)
    messages = tuple(_message(each, traits, warnings) for each in shown)
    tools = tuple(_tool(each, traits) for each in batch.tools)
    changed = attrs.evolve(
        batch,
        sampling=_sampling(batch.sampling, traits, warnings),
        reasoning=reasoning,
        messages=messages,
        tools=tools,
    )
    return Fitted(changed, tuple(dict.fromkeys(warnings)))


def _sampling(sampling: Sampling, traits: ChatTraits, warnings: list[str]) -> Sampling:
    most, wanted = traits.max_output_tokens, sampling.max_tokens
    if most is not None and wanted is not None and wanted > most:
        # Agents ask for what their own models can write, and are refused by others.
        warnings.append(f"max_tokens was lowered to {most}")
        sampling = attrs.evolve(sampling, max_tokens=most)
    absent = sampling.given() - traits.sampling
    if not absent:
        return sampling
    plain = Sampling()
    return attrs.evolve(sampling, **{name: getattr(plain, name) for name in absent})


def _reasoning(
    reasoning: Reasoning | None, traits: ChatTraits, warnings: list[str]
) -> Reasoning | None:
    if reasoning is None or not traits.effort:
        return None
    budget = reasoning.budget_tokens
    if reasoning.effort is not None or budget is None or budget < 0:
        return reasoning
    effort = next((each for most, each in _BUDGETS if budget <= most), Effort.HIGH)
    warnings.append(f"a reasoning budget of {budget} tokens became {effort.value!r}")
    return attrs.evolve(reasoning, effort=effort)


def _tool(tool: Tool | RawTool, traits: ChatTraits) -> Tool | RawTool:
    if traits.extensions or isinstance(tool, RawTool) or tool.cache is None:
        return tool
    return attrs.evolve(tool, cache=None)


def _shown_by_users(
    messages: Sequence[Message], warnings: list[str]
) -> tuple[Message, ...]:
    """Return messages whose tools' results are text."""
    found: list[Message] = []
    media: list[Part] = []
    for message in messages:
        if message.role is Role.TOOL:
            parts = tuple(_in_text(part, media) for part in message.content)
            found.append(attrs.evolve(message, content=parts))
            continue
        if media:
            found.append(Message(Role.USER, tuple(media)))
            media.clear()
        found.append(message)
    if media:
        found.append(Message(Role.USER, tuple(media)))
    if len(found) > len(messages):
        warnings.append("what a tool showed was sent in a message behind its result")
    return tuple(found)


def _in_text(part: Part, media: list[Part]) -> Part:
    """Return a result without media, which are added to ``media``."""
    if not isinstance(part, ToolResultPart):
        return part
    shown = [each for each in part.content if isinstance(each, _MEDIA)]
    if not shown:
        return part
    media += [TextPart(f"What the tool call {part.call_id} returned:"), *shown]
    said = tuple(each for each in part.content if not isinstance(each, _MEDIA))
    return attrs.evolve(part, content=said or (TextPart(_BELOW),))


def _message(message: Message, traits: ChatTraits, warnings: list[str]) -> Message:
    content = tuple(
        kept
        for part in message.content
        if (kept := _part(part, traits, warnings)) is not None
    )
    return attrs.evolve(message, content=content)


def _part(part: Part, traits: ChatTraits, warnings: list[str]) -> Part | None:
    match part:
        case ReasoningPart():
            return _thought(part, traits)
        case ToolCallPart() if not traits.extensions:
            return attrs.evolve(part, signature=None, cache=None)
        case ToolResultPart():
            if part.is_error:
                warnings.append("that a tool failed is told by its text alone")
            return part if traits.extensions else attrs.evolve(part, cache=None)
        case TextPart() | ImagePart() | AudioPart() | FilePart() if (
            not traits.extensions and part.cache is not None
        ):
            return attrs.evolve(part, cache=None)
        case _:
            return part


def _thought(part: ReasoningPart, traits: ChatTraits) -> ReasoningPart | None:
    """Return a thought that the server may see again; None: it may not.

    Another provider's signature means nothing to it, and a thought without its
    signature is not what its model thought.
    """
    proof = part.signature or part.data
    if not traits.extensions or (proof is not None and proof.origin not in _OWN):
        return None
    return part
