"""One of vLLM's tool parsers over one answer.

The parser decides what of a text is a call; here its pieces become ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from atomr_infer.model.batch import ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class CallParser(Protocol):
    """Finds calls in an answer's text."""

    @property
    def has_called(self) -> bool:
        """Whether it has found one."""
        ...

    def take(
        self, text: str, tokens: Sequence[int], *, finished: bool
    ) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Return what is no call of the new text, and the pieces of calls."""
        ...


class StreamedCalls:
    """A :class:`CallParser` on a parser of vLLM's.

    Args:
        parser: a ``ToolParser`` of this answer alone: it keeps where it is.
        request: vLLM's own form of the request, which the parser reads.
        id_of: what the calls' ids begin with.
    """

    def __init__(
        self,
        parser: Any,  # noqa: ANN401  vLLM's, which is not imported
        request: Any,  # noqa: ANN401  as above
        id_of: str,
    ) -> None:
        self._streaming: Callable[..., Any] = parser.extract_tool_calls_streaming
        self._rest: Callable[[], str] = parser.get_remaining_unstreamed_args
        self._request = request
        self._id_of = id_of
        self._text = ""
        self._tokens: list[int] = []
        self._named: set[int] = set()

    @property
    def has_called(self) -> bool:
        """Whether it has found a call."""
        return bool(self._named)

    def take(
        self, text: str, tokens: Sequence[int], *, finished: bool
    ) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Return what is no call of the new text, and the pieces of calls."""
        before, self._text = self._text, self._text + text
        tokens_before = list(self._tokens)
        self._tokens.extend(tokens)
        delta = self._streaming(
            before, self._text, text, tokens_before, self._tokens, tokens, self._request
        )
        said = "" if delta is None else delta.content or ""
        pieces = [] if delta is None else list(map(self._piece, delta.tool_calls))
        if finished and self._named and (rest := self._rest()):
            pieces.append(ToolCallDelta(index=max(self._named), arguments=rest))
        return said, tuple(pieces)

    def _piece(self, call: Any) -> ToolCallDelta:  # noqa: ANN401  vLLM's DeltaToolCall
        function = call.function
        name = None if function is None else function.name
        arguments = "" if function is None else function.arguments or ""
        if name is None or call.index in self._named:
            return ToolCallDelta(index=call.index, arguments=arguments)
        self._named.add(call.index)
        return ToolCallDelta(
            index=call.index,
            id=f"{self._id_of}-{call.index}",
            name=name,
            arguments=arguments,
        )
