"""Tool calls: how they are forced, and how they come out of an answer's text.

Where a request requires a call, the answer is constrained to its JSON, which any
model can write.  Of one tool, the text is the arguments, and is passed on as it
comes.  Of several, it is an array of calls, which is read when it is whole.

Where the model decides, it writes calls in the way that it was trained to, and one
of vLLM's parsers finds them (``parsing``).

Pure.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from atomr_infer.errors import (
    EngineError,
    InferenceError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from atomr_infer.model.asks import FormatKind, ResponseFormat, Tool, ToolMode
from atomr_infer.model.batch import ToolCallDelta
from atomr_infer.runtimes.decoding.turns import parameters_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.model.batch import ExecuteBatch


@attrs.frozen(kw_only=True)
class Forced:
    """A request whose answer must be calls.

    Attributes:
        schema: what the answer's text is constrained to.
        name: the tool whose arguments the text is; None: the text is an array.
    """

    schema: dict[str, Any]
    name: str | None


def forced_of(batch: ExecuteBatch) -> Forced | None:
    """Return what a request's answer is constrained to; None: to nothing by tools.

    Raises:
        InvalidRequestError: it requires a tool that it does not have.
    """
    choice = batch.tool_choice
    if choice is None or choice.mode is not ToolMode.REQUIRED:
        return None
    tools = [tool for tool in batch.tools if isinstance(tool, Tool)]
    known = {tool.name for tool in tools}
    for name in choice.names:
        if name not in known:
            raise InvalidRequestError(
                f"tool_choice names {name!r}, which is not in tools",
                param="tool_choice",
            )
    allowed = [t for t in tools if not choice.names or t.name in choice.names]
    if not allowed:
        raise InvalidRequestError(
            "tool_choice requires a tool, and tools is empty", param="tool_choice"
        )
    if len(choice.names) == 1:
        return Forced(schema=parameters_of(allowed[0]), name=allowed[0].name)
    return Forced(schema=_calls_schema(batch, allowed), name=None)


def format_of(forced: Forced) -> ResponseFormat:
    """Return the form of an answer's text that is calls."""
    schema = msgspec.json.encode(forced.schema)
    return ResponseFormat(kind=FormatKind.JSON_SCHEMA, schema=schema)


def without_stops(batch: ExecuteBatch, forced: Forced | None) -> ExecuteBatch:
    """Return a request whose stop strings do not cut the calls that it requires.

    A call that is cut is none.  They are for an answer's text, and there is none.
    """
    if forced is None or not batch.sampling.stop:
        return batch
    return attrs.evolve(batch, sampling=attrs.evolve(batch.sampling, stop=()))


@contextmanager
def naming_tools(forced: Forced | None) -> Iterator[None]:
    """Let a refusal of a schema name the member of the request that it came from.

    What keeps answers to a schema knows of ``response_format`` only; a client that
    sent tools sent none.
    """
    try:
        yield
    except InferenceError as error:
        if forced is not None and error.param == "response_format":
            error.param = "tools"
        raise


def _calls_schema(batch: ExecuteBatch, tools: list[Tool]) -> dict[str, Any]:
    kinds = [
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "enum": [tool.name]},
                "parameters": parameters_of(tool),
            },
            "required": ["name", "parameters"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    schema: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": kinds}}
    if batch.parallel_tool_calls is False:
        schema["maxItems"] = 1
    return schema


def refuse_undecided(batch: ExecuteBatch, tool_parser: str | None) -> None:
    """Refuse tools that the model may call, where nothing would find its calls.

    Raises:
        UnsupportedFeatureError: says which option is missing.
    """
    mode = ToolMode.AUTO if batch.tool_choice is None else batch.tool_choice.mode
    if batch.tools and mode is ToolMode.AUTO and tool_parser is None:
        raise UnsupportedFeatureError(
            "this deployment calls tools only where tool_choice requires it; its "
            "operator can name the model's tool_parser",
            code="unsupported_parameter",
            param="tools",
        )


class _Call(msgspec.Struct):
    name: str
    parameters: msgspec.Raw


def calls_in(text: str, id_of: str) -> tuple[ToolCallDelta, ...]:
    """Return the calls that a constrained answer holds.

    Args:
        text: the whole answer.
        id_of: what the calls' ids begin with.

    Raises:
        EngineError: it is not what it was constrained to.

    >>> calls_in('[{"name": "f", "parameters": {"x": 1}}]', "c")
    (ToolCallDelta(index=0, id='c-0', name='f', arguments='{"x": 1}', signature=None),)
    """
    try:
        calls = msgspec.json.decode(text, type=list[_Call])
    except (msgspec.DecodeError, RecursionError) as error:
        raise EngineError(
            f"the answer is not the tool calls that it must be: {error}"
        ) from error
    return tuple(
        ToolCallDelta(
            index=index,
            id=f"{id_of}-{index}",
            name=call.name,
            arguments=bytes(call.parameters).decode(),
        )
        for index, call in enumerate(calls)
    )
