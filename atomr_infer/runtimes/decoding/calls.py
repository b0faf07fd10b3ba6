"""Tool calls in an answer's text, as it comes.

Where a request requires a call, the answer is constrained to its JSON
(:mod:`~atomr_infer.runtimes.decoding.tools`), and all of it is calls.

Where the model decides, it writes calls as ``<tool_call>{"name": ..., "arguments":
...}</tool_call>``, as many are trained to; a model whose template knows no tools is
told to (:mod:`~atomr_infer.runtimes.decoding.told_tools`).  What is no call, or none
that can be read, is told as text.

Pure, but for :class:`CallStream`, which only iterates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs
import msgspec

from atomr_infer.model.asks import ToolMode
from atomr_infer.model.batch import FinishReason, TokenChunk, ToolCallDelta
from atomr_infer.runtimes.decoding.text import overlap
from atomr_infer.runtimes.decoding.tools import calls_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.parts import RawJson
    from atomr_infer.runtimes.decoding.tools import Forced

OPENS, CLOSES = "<tool_call>", "</tool_call>"
"""What stands around a call."""


class Reader(Protocol):
    """Tells the text of one answer from its calls."""

    def push(self, text: str) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Take new text; return what is no call of it, and the pieces of calls."""
        ...

    def end(self, reason: FinishReason) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Return what was held back: the answer is over."""
        ...


class FoundCalls:
    """A :class:`Reader` of calls that the model decided on.

    Args:
        id_of: what the calls' ids begin with.
        most: most calls of the answer; None: any number.
    """

    def __init__(self, id_of: str, *, most: int | None = None) -> None:
        self._id_of = id_of
        self._most = most
        self._count = 0
        self._held = ""  # may be the beginning of a marker
        self._call: str | None = None  # what came behind the marker

    def push(self, text: str) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Take new text; return what is no call of it, and whole calls."""
        said, calls = "", []
        while text:
            if self._call is None:
                found, text = self._outside(text)
                said += found
                continue
            self._call += text
            inside, closed, text = self._call.partition(CLOSES)
            if not closed:
                break
            self._call = None
            call = self._read(inside)
            if call is None:
                said += OPENS + inside + CLOSES
            elif self._most is None or self._count < self._most:
                self._count += 1
                calls.append(call)
        return said, tuple(calls)

    def end(self, reason: FinishReason) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Return the rest; a call that was not closed is one if it can be read."""
        del reason
        said, open_call = self._held, self._call
        self._held, self._call = "", None
        if open_call is None:
            return said, ()
        call = self._read(open_call)
        if call is None or (self._most is not None and self._count >= self._most):
            return said + OPENS + open_call, ()
        return said, (call,)

    def _outside(self, text: str) -> tuple[str, str]:
        """Return what is told of text outside of calls, and what is behind it."""
        said, marker, behind = (self._held + text).partition(OPENS)
        if marker:
            self._held, self._call = "", ""
            return said, behind
        whole = len(said) - overlap(said, OPENS)
        self._held = said[whole:]
        return said[:whole], ""

    def _read(self, inside: str) -> ToolCallDelta | None:
        try:
            call = msgspec.json.decode(inside.strip(), type=_Call)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return None
        arguments = bytes(call.arguments).decode()
        return ToolCallDelta(
            index=self._count,
            id=f"{self._id_of}-{self._count}",
            name=call.name,
            arguments=arguments,
        )


class _Call(msgspec.Struct):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class ForcedCalls:
    """A :class:`Reader` of an answer that is calls.

    Args:
        id_of: what the calls' ids begin with.
        name: the tool whose arguments the answer is; None: it is an array of calls.
    """

    def __init__(self, id_of: str, name: str | None) -> None:
        self._id_of = id_of
        self._name = name
        self._begun = False
        self._text = ""

    def push(self, text: str) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Take new text: arguments are passed on, an array is read when it is whole."""
        if self._name is None:
            self._text += text
            return "", ()
        if self._begun:
            return "", (ToolCallDelta(arguments=text),)
        self._begun = True
        first = ToolCallDelta(
            id=f"{self._id_of}-0", name=self._name, arguments=text.lstrip()
        )
        return "", (first,)

    def end(self, reason: FinishReason) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Return the calls of an array that is whole.

        Raises:
            EngineError: it is not what it was constrained to.
        """
        whole = self._name is None and reason is FinishReason.STOP
        return "", calls_in(self._text, self._id_of) if whole else ()


def with_calls(
    chunks: AsyncIterator[TokenChunk], batch: ExecuteBatch, forced: Forced | None
) -> AsyncIterator[TokenChunk]:
    """Return a generation's chunks, with calls where its request has tools.

    Args:
        chunks: the generation's.
        batch: the request.
        forced: what its answers are constrained to by tools.
    """
    begins = f"call-{batch.request_id}"
    choice = batch.tool_choice
    if forced is not None:
        name = forced.name
        return CallStream(chunks, lambda at: ForcedCalls(f"{begins}-{at}", name))
    if not batch.tools or (choice is not None and choice.mode is ToolMode.NONE):
        return chunks
    most = 1 if batch.parallel_tool_calls is False else None
    return CallStream(chunks, lambda at: FoundCalls(f"{begins}-{at}", most=most))


class CallStream:
    """The chunks of a generation, with calls where its text holds them.

    Args:
        chunks: the generation's.
        reader_of: makes the reader of an answer.
    """

    def __init__(
        self, chunks: AsyncIterator[TokenChunk], reader_of: Callable[[int], Reader]
    ) -> None:
        self._chunks = chunks
        self._reader_of = reader_of
        self._readers: dict[int, Reader] = {}
        self._called: set[int] = set()
        self._unsaid: dict[int, list[RawJson]] = {}  # logprobs of what is held back

    def __aiter__(self) -> CallStream:
        return self

    async def __anext__(self) -> TokenChunk:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: the answers are complete.
            InferenceError: it failed.
        """
        while True:
            chunk = self._read(await anext(self._chunks))
            if chunk.has_content or chunk.finish_reason:
                return self._with_unsaid(chunk)
            if chunk.usage:
                return chunk
            if chunk.logprobs is not None:
                self._unsaid.setdefault(chunk.index, []).append(chunk.logprobs)

    def _with_unsaid(self, chunk: TokenChunk) -> TokenChunk:
        """Return a chunk with the logprobs of what was held back until it, too."""
        unsaid = self._unsaid.pop(chunk.index, None)
        if unsaid is None:
            return chunk
        if chunk.logprobs is not None:
            unsaid.append(chunk.logprobs)
        return attrs.evolve(chunk, logprobs=_joined(unsaid))

    def _read(self, chunk: TokenChunk) -> TokenChunk:
        index, reason = chunk.index, chunk.finish_reason
        if not chunk.text and reason is None:
            return chunk
        reader = self._readers.setdefault(index, self._reader_of(index))
        text, calls = reader.push(chunk.text) if chunk.text else ("", ())
        if reason is not None:
            more, last = reader.end(reason)
            text, calls = text + more, calls + last
        if calls:
            self._called.add(index)
        if reason is FinishReason.STOP and index in self._called:
            reason = FinishReason.TOOL_CALLS
        return attrs.evolve(chunk, text=text, tool_calls=calls, finish_reason=reason)


class _Logprobs(msgspec.Struct):
    content: list[msgspec.Raw] | None = None
    refusal: list[msgspec.Raw] | None = None


def _joined(logprobs: list[RawJson]) -> bytes:
    parts = [msgspec.json.decode(each, type=_Logprobs) for each in logprobs]
    content = [token for part in parts for token in part.content or ()]
    refusal = [token for part in parts for token in part.refusal or ()]
    return msgspec.json.encode(_Logprobs(content, refusal or None))
