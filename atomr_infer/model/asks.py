"""What a request asks of the model besides text: tools, a format, reasoning.

Pure.
"""

from __future__ import annotations

from enum import Enum

import attrs

from atomr_infer.model.parts import CacheHint, RawJson


@attrs.frozen(kw_only=True)
class Tool:
    """A function that the model may ask to run.

    Attributes:
        name: what calls name.
        description: what the model reads about it.
        parameters: JSON Schema of the arguments; None: it takes none.
        strict: True when arguments must match the schema exactly.
        cache: a prompt-cache border behind it.
    """

    name: str
    description: str | None = None
    parameters: RawJson | None = None
    strict: bool | None = None
    cache: CacheHint | None = None


@attrs.frozen
class RawTool:
    """A tool of the provider's own: web search, code execution, ...

    Attributes:
        kind: its ``type``.
        json: the whole tool as received.
    """

    kind: str
    json: RawJson


class ToolMode(Enum):
    """Whether the model calls tools."""

    AUTO = "auto"
    REQUIRED = "required"
    NONE = "none"


@attrs.frozen(kw_only=True)
class ToolChoice:
    """How tools are chosen.

    Attributes:
        mode: whether tools are called at all.
        names: with REQUIRED, the only tools allowed; (): any.
        hosted: the kinds of the provider's own tools among those; no other
            provider has them.
    """

    mode: ToolMode = ToolMode.AUTO
    names: tuple[str, ...] = ()
    hosted: tuple[str, ...] = ()


class FormatKind(Enum):
    """What an answer's text must be."""

    TEXT = "text"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"


@attrs.frozen(kw_only=True)
class ResponseFormat:
    """The form of the answer's text.

    Attributes:
        kind: what it must be.
        schema: the JSON Schema, for JSON_SCHEMA.
        name: the schema's name, when the client gave one.
        description: what the model reads about the schema.
        strict: True when the schema must be matched exactly.
    """

    kind: FormatKind = FormatKind.TEXT
    schema: RawJson | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class Effort(Enum):
    """How much a model reasons before it answers, least first."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


@attrs.frozen(kw_only=True)
class Reasoning:
    """How the model shall reason.

    Attributes:
        effort: how much; None: not said.
        budget_tokens: most reasoning tokens; 0: none; -1: as the model likes.
        include: True when the readable thoughts (or their summary) are wanted.
        adaptive: True when the client asked that the model decides by itself.
        summary: OpenAI Responses' ``auto``, ``concise``, ``detailed``.
    """

    effort: Effort | None = None
    budget_tokens: int | None = None
    include: bool | None = None
    adaptive: bool = False
    summary: str | None = None
