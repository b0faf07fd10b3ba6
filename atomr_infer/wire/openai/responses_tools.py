"""Tools that only OpenAI has in such a form, as plain functions and back.

A custom tool takes free text: elsewhere it is a function with one text, ``input``.
A namespace holds functions: elsewhere each is named by both names.  What a model
calls comes back in the form in which the client offered it, and what the client
sends of earlier calls has the function's form again.

Pure.

Source: OpenAI API reference, "Create a model response", ``tools``; "Function
calling", custom tools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec
from msgspec import Raw

from atomr_infer.model.asks import RawTool, Tool
from atomr_infer.wire.fields import Fields
from atomr_infer.wire.openai.chat_asks import function_tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LIST = "a list"
_BETWEEN = "__"
_MARKS = (b'"custom"', b'"namespace"')

_FREE_TEXT = msgspec.json.encode(
    {
        "type": "object",
        "properties": {"input": {"type": "string"}},
        "required": ["input"],
        "additionalProperties": False,
    }
)

_encode = msgspec.json.Encoder().encode


class _FreeText(msgspec.Struct, forbid_unknown_fields=True):
    input: str


_decode_free_text = msgspec.json.Decoder(_FreeText).decode


@attrs.frozen(kw_only=True)
class CallForm:
    """How a client offered what a model sees as a function.

    Attributes:
        name: as the client names it.
        namespace: where it stands; None: in none.
        custom: True for a custom tool, whose input is free text.
    """

    name: str
    namespace: str | None = None
    custom: bool = False


def parse_tools(root: Fields) -> tuple[tuple[Tool | RawTool, ...], tuple[str, ...]]:
    """Take the ``tools`` of a request; return them, and what was approximated.

    Raises:
        InvalidRequestError: with ``param`` naming the tool's member at fault.
    """
    found: list[Tool | RawTool] = []
    warnings = []
    for param, tool, form in _tools(root):
        found.append(tool)
        if form is not None and form.custom:
            warnings.append(f"{param} became a function that takes one text")
    return tuple(found), tuple(warnings)


def call_forms(tools: Raw | None) -> Mapping[str, CallForm]:
    """Return the tools that are no plain functions, by the name that models see.

    Args:
        tools: of a request that was read.
    """
    if tools is None or not any(mark in bytes(tools) for mark in _MARKS):
        return {}
    return {
        tool.name: form
        for _, tool, form in _tools(Fields({"tools": tools}))
        if isinstance(tool, Tool) and form is not None
    }


def flat_name(name: str, namespace: str | None) -> str:
    """Return the one name of a function in a namespace.

    >>> flat_name("spawn", "agents"), flat_name("spawn", None)
    ('agents__spawn', 'spawn')
    """
    return name if namespace is None else f"{namespace}{_BETWEEN}{name}"


def free_text(arguments: str) -> str:
    r"""Return the input of a custom tool that a model called as a function.

    What is not the one text that was asked for is given as it is: the tool then
    says what is wrong with it.

    >>> free_text('{"input": "a\\nb"}'), free_text("a")
    ('a\nb', 'a')
    """
    try:
        return _decode_free_text(arguments).input
    except msgspec.DecodeError:
        return arguments


def free_text_arguments(text: str) -> str:
    """Return a function's arguments that mean a custom tool's input."""
    return _encode({"input": text}).decode()


def _tools(
    fields: Fields, namespace: str | None = None
) -> Iterator[tuple[str, Tool | RawTool, CallForm | None]]:
    """Yield each tool with its place, and its form where it is no plain function."""
    for param, raw in fields.items("tools", _LIST):
        tool = Fields.of(raw, param)
        kind = tool.required("type", str, "a string")
        if kind == "namespace" and namespace is None:
            yield from _tools(tool, tool.required("name", str, "a string"))
        elif kind == "function":
            yield param, *_function(tool, namespace)
        elif kind == "custom":
            yield param, *_custom(tool, namespace)
        else:
            yield param, RawTool(kind, bytes(raw)), None


def _function(fields: Fields, namespace: str | None) -> tuple[Tool, CallForm | None]:
    tool = function_tool(fields, cache_from=fields)
    if namespace is None:
        return tool, None
    form = CallForm(name=tool.name, namespace=namespace)
    return attrs.evolve(tool, name=flat_name(tool.name, namespace)), form


def _custom(fields: Fields, namespace: str | None) -> tuple[Tool, CallForm]:
    name = fields.required("name", str, "a string")
    tool = Tool(
        name=flat_name(name, namespace),
        description=_description(fields),
        parameters=_FREE_TEXT,
    )
    return tool, CallForm(name=name, namespace=namespace, custom=True)


def _description(fields: Fields) -> str | None:
    """Return what the tool says of itself, and the grammar that its text must have."""
    said = fields.text("description")
    form = fields.nested("format")
    if form is None or (grammar := form.text("definition")) is None:
        return said
    syntax = form.text("syntax") or "this"
    rule = f"`input` is text of this {syntax} grammar:\n{grammar}"
    return rule if said is None else f"{said}\n\n{rule}"
