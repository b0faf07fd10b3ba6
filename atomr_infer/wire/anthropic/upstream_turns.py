"""Write a conversation as Anthropic's alternating turns.

*   System messages at the front become the top-level ``system``.  One further
    on keeps its place where the model takes it there, and is folded into the
    next user's turn where it does not.
*   Adjacent turns of one role are merged, and the first one is the user's.
*   In a user's turn the results of tools come first.
*   Empty text is left out, since the API refuses it.
*   Thoughts that another provider signed are left out.

Pure.

Source: Anthropic API reference, "Create a Message", ``messages``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.errors import InvalidRequestError, UnsupportedFeatureError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    AudioPart,
    CacheHint,
    FilePart,
    ImagePart,
    Part,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atomr_infer.wire.anthropic.upstream_media import document_block, image_block

if TYPE_CHECKING:
    from atomr_infer.wire.anthropic.traits import ModelTraits

Block = dict[str, object] | msgspec.Raw

_SYSTEM_ROLES = {Role.SYSTEM, Role.DEVELOPER}
_TOOL_ID = re.compile(r"[^a-zA-Z0-9_-]")

# What stands for a user's turn where a conversation has none: the API wants one
# and takes no empty text.
_PLACEHOLDER = "."


@attrs.frozen(kw_only=True)
class Turns:
    """A conversation, written.

    Attributes:
        system: the blocks of ``system``.
        messages: the members of ``messages``.
        warnings: what was approximated or left out, in one phrase each.
    """

    system: list[Block]
    messages: list[dict[str, object]]
    warnings: list[str]


def encode_turns(batch: ExecuteBatch, traits: ModelTraits) -> Turns:
    """Return the conversation of a request.

    Raises:
        InvalidRequestError: a tool call's arguments are no JSON object, or media
            cannot be sent; ``param`` names the message.
        UnsupportedFeatureError: the model takes no such part, or the last turn
            is the assistant's and the model does not go on with it.
    """
    writer = _Writer(batch.dialect, traits)
    for position, message in enumerate(batch.messages):
        writer.add(position, message)
    return writer.finished()


def check_prefill(batch: ExecuteBatch, traits: ModelTraits) -> None:
    """Refuse a conversation that ends in an assistant's text, where the model does.

    For requests that are not written here.

    Raises:
        UnsupportedFeatureError: the model does not go on with it.
    """
    if traits.prefill or not batch.messages:
        return
    last = batch.messages[-1]
    ends_in_text = bool(last.content) and isinstance(last.content[-1], TextPart)
    if last.role is Role.ASSISTANT and ends_in_text:
        raise _no_prefill(f"messages[{len(batch.messages) - 1}]")


def fit_as_they_are(batch: ExecuteBatch, traits: ModelTraits) -> bool:
    """Whether a Claude model takes the turns of a client that speaks this API.

    It does not where another model answered before, whose thoughts Anthropic has
    not signed, nor where a client that does not know the model behind its name
    sent a system message that the model takes at the front only.
    """
    spoken = False
    for message in batch.messages:
        if message.role not in _SYSTEM_ROLES:
            spoken = True
        elif spoken and not traits.system_turns:
            return False
        if any(map(_is_foreign_thought, message.content)):
            return False
    return True


def _is_foreign_thought(part: Part) -> bool:
    if not isinstance(part, ReasoningPart):
        return False
    proof = part.data or part.signature
    return proof is None or proof.origin is not Dialect.ANTHROPIC


def _no_prefill(param: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        "this model does not continue an assistant's text: the last message must"
        " be a user's or a tool's",
        code="unsupported_parameter",
        param=param,
    )


class _Writer:
    def __init__(self, dialect: Dialect, traits: ModelTraits) -> None:
        self._dialect = dialect
        self._traits = traits
        self._system: list[Block] = []
        self._turns: list[tuple[str, list[Block]]] = []
        self._folded: list[Block] = []
        self._ids = _ToolIds()
        self._last_param = ""
        self._warnings: dict[str, None] = {}

    def add(self, position: int, message: Message) -> None:
        param = f"messages[{position}]"
        blocks = self._blocks(param, message)
        if message.role in _SYSTEM_ROLES:
            self._add_system(blocks)
        elif message.role is Role.ASSISTANT:
            self._append("assistant", blocks)
        elif blocks:
            self._append("user", [*blocks, *self._take_folded()])
        if blocks:
            self._last_param = param

    def finished(self) -> Turns:
        self._append("user", self._take_folded())
        self._check_prefill()
        if not self._turns or self._turns[0][0] != "user":
            self._warn("a user's turn was put in front, as the provider wants one")
            placeholder: Block = {"type": "text", "text": _PLACEHOLDER}
            self._turns.insert(0, ("user", [placeholder]))
        return Turns(
            system=self._system,
            messages=[
                {"role": role, "content": _results_first(self._once(blocks))}
                for role, blocks in self._turns
            ],
            warnings=list(self._warnings),
        )

    def _once(self, blocks: list[Block]) -> list[Block]:
        """Leave out a result that stands there already; the API takes one of each."""
        kept: list[Block] = []
        results: dict[object, Block] = {}
        for block in blocks:
            if isinstance(block, dict) and block["type"] == "tool_result":
                first = results.setdefault(block["tool_use_id"], block)
                if first is not block and first == block:
                    self._warn("a tool's result that was sent twice was sent on once")
                    continue
            kept.append(block)
        return kept

    def _warn(self, phrase: str) -> None:
        self._warnings[phrase] = None

    def _append(self, role: str, blocks: list[Block]) -> None:
        if not blocks:
            return
        if self._turns and self._turns[-1][0] == role:
            self._turns[-1][1].extend(blocks)
        else:
            self._turns.append((role, list(blocks)))

    def _add_system(self, blocks: list[Block]) -> None:
        if not blocks:
            return
        if not self._turns:
            self._system += blocks
        elif self._traits.system_turns and self._turns[-1][0] in {"user", "system"}:
            self._append("system", blocks)
        else:
            self._warn("a system message was folded into the next user's turn")
            self._folded += _marked(blocks)

    def _take_folded(self) -> list[Block]:
        folded, self._folded = self._folded, []
        return folded

    def _check_prefill(self) -> None:
        if not self._turns or self._turns[-1][0] != "assistant":
            return
        last = self._turns[-1][1][-1]
        # A turn that ends in something else is one that the provider itself paused.
        if not isinstance(last, dict) or last["type"] != "text":
            return
        if not self._traits.prefill:
            raise _no_prefill(self._last_param)
        # The API refuses white space at the end of what it goes on with.
        last["text"] = str(last["text"]).rstrip()

    # --- parts ----------------------------------------------------------------

    def _blocks(self, param: str, message: Message) -> list[Block]:
        blocks: list[Block] = []
        for at, part in enumerate(message.content):
            block = self._block(f"{param}.content[{at}]", part)
            if block is None:
                continue
            cache = getattr(part, "cache", None)
            if cache is not None and isinstance(block, dict):
                block["cache_control"] = cache_control(cache)
            blocks.append(block)
        return blocks

    def _block(self, param: str, part: Part) -> Block | None:
        match part:
            case TextPart(text) | RefusalPart(text):
                return {"type": "text", "text": text} if text.strip() else None
            case ReasoningPart():
                return self._thinking(part)
            case ToolCallPart():
                return self._tool_use(param, part)
            case ToolResultPart():
                return self._tool_result(param, part)
            case RawPart() if self._dialect is Dialect.ANTHROPIC:
                return msgspec.Raw(part.json)
            case ImagePart() | FilePart():
                return self._media(param, part)
            case AudioPart():
                raise _absent("sound", param)
            case RawPart(kind):
                raise _absent(f"content of type {kind!r}", param)

    def _media(self, param: str, part: ImagePart | FilePart) -> Block:
        if isinstance(part, FilePart):
            return document_block(part, param=param, dialect=self._dialect)
        if part.detail not in {None, "auto"}:
            self._warn("the detail of a picture was left out")
        return image_block(part, param=param, dialect=self._dialect)

    def _thinking(self, part: ReasoningPart) -> Block | None:
        if part.data is not None and part.data.origin is Dialect.ANTHROPIC:
            return {"type": "redacted_thinking", "data": part.data.text}
        signature = part.signature
        if signature is not None and signature.origin is Dialect.ANTHROPIC:
            return {
                "type": "thinking",
                "thinking": part.text,
                "signature": signature.text,
            }
        self._warn("a thought that Anthropic did not sign was left out")
        return None

    def _tool_use(self, param: str, part: ToolCallPart) -> Block:
        try:
            arguments = (part.arguments.strip() or "{}").encode()
            msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise InvalidRequestError(
                f"'{param}': the arguments of the tool call {part.id!r} are not"
                " the text of a JSON object",
                param=param,
            ) from error
        return {
            "type": "tool_use",
            "id": self._ids.of(part.id),
            "name": part.name,
            "input": msgspec.Raw(arguments),
        }

    def _tool_result(self, param: str, part: ToolResultPart) -> Block:
        content = [self._block(f"{param}.content", inner) for inner in part.content]
        block: dict[str, object] = {
            "type": "tool_result",
            "tool_use_id": self._ids.of(part.call_id),
            "content": [inner for inner in content if inner is not None],
        }
        if part.is_error:
            block["is_error"] = True
        return block


class _ToolIds:
    """Tool ids as the API takes them; each one has one name in a request.

    The API wants letters, digits, ``_`` and ``-``.  An id that has others is
    written anew, the same way every time, and no two become one.
    """

    def __init__(self) -> None:
        self._written: dict[str, str] = {}

    def of(self, identity: str) -> str:
        if identity not in self._written:
            self._written[identity] = self._new(identity)
        return self._written[identity]

    def _new(self, identity: str) -> str:
        wanted = _TOOL_ID.sub(lambda m: f"_{ord(m[0]):x}", identity) or "_"
        name, number = wanted, 1
        while name in self._written.values():
            number += 1
            name = f"{wanted}_{number}"
        return name


def cache_control(hint: CacheHint) -> dict[str, str]:
    """Return the member that asks for a prompt to be cached."""
    control = {"type": "ephemeral"}
    if hint.ttl is not None:
        control["ttl"] = hint.ttl
    return control


def _results_first(blocks: list[Block]) -> list[Block]:
    return sorted(blocks, key=lambda block: not _is_result(block))


def _is_result(block: Block) -> bool:
    return isinstance(block, dict) and block["type"] == "tool_result"


def _marked(blocks: list[Block]) -> list[Block]:
    """Mark what the system said, so that it is not taken for the user's words."""
    marked: list[Block] = []
    for block in blocks:
        if isinstance(block, dict) and block["type"] == "text":
            marked.append({**block, "text": f"<system>\n{block['text']}\n</system>"})
        else:
            marked.append(block)
    return marked


def _absent(what: str, param: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"this model does not support {what} (request field {param!r})",
        code="unsupported_parameter",
        param=param,
    )
