"""What the mock runtime answers, decided before the first token is sent.

A word is a token, with the white space in front of it.  So the answer to every
request is known in advance, and a test can state it.

Pure.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.errors import (
    ConfigError,
    ErrorRecord,
    InferenceError,
    UpstreamError,
    decode,
)
from atomr_infer.model.asks import FormatKind, Tool, ToolMode
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    ReasoningDelta,
    Role,
    TokenChunk,
    ToolCallDelta,
    Usage,
)
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.validation import InvalidValueError, at_least
from atomr_infer.testing.upstreams.schema_example import example_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from atomr_infer.model.deployment import OptionValue


def is_text(_: object, field: attrs.Attribute[str], value: object) -> None:
    """Require a string; it may be empty."""
    if not isinstance(value, str):
        raise InvalidValueError(field.name, value, "is not a string")


def not_negative(_: object, field: attrs.Attribute[float], value: object) -> None:
    """Require a finite number of seconds, 0 or more."""
    number = value if isinstance(value, (int, float)) else math.nan
    # bool is an int to Python; nan fails every comparison.
    if isinstance(value, bool) or not 0 <= number < math.inf:
        raise InvalidValueError(field.name, value, "is not a number of seconds")


def error_kind(_: object, field: attrs.Attribute[str], value: object) -> None:
    """Require the ``kind`` of a class in ``atomr_infer.errors``."""
    if not isinstance(value, str) or decode(ErrorRecord(value, "")).kind != value:
        raise InvalidValueError(
            field.name, value, "is no error's kind; use one such as 'upstream'"
        )


def is_switch(_: object, field: attrs.Attribute[bool], value: object) -> None:
    """Require true or false."""
    if not isinstance(value, bool):
        raise InvalidValueError(field.name, value, "is neither true nor false")


_optional_text = attrs.validators.optional(is_text)
_optional_count = attrs.validators.optional(at_least(0))
_CALL_KEYS = {"name", "arguments"}


@attrs.frozen(kw_only=True)
class MockCall:
    """A tool that the mock calls.

    Attributes:
        name: the tool's.
        arguments: their JSON.
    """

    name: str = attrs.field(validator=is_text)
    arguments: str = attrs.field(default="{}", validator=is_text)


def _as_calls(given: object) -> tuple[MockCall, ...]:
    """Take tables, as a configuration file has them."""
    if not isinstance(given, (list, tuple)):
        problem = "is no list of tables with name and arguments"
        raise InvalidValueError("tool_calls", given, problem)
    return tuple(_as_call(f"tool_calls[{i}]", each) for i, each in enumerate(given))


def _as_call(where: str, given: object) -> MockCall:
    if isinstance(given, MockCall):
        return given
    if not isinstance(given, Mapping) or not {"name"} <= {*given} <= _CALL_KEYS:
        raise InvalidValueError(where, given, "is no table with name and arguments")
    name = given["name"]
    if not isinstance(name, str):
        raise InvalidValueError(f"{where}.name", name, "is not a string")
    arguments = _as_json(f"{where}.arguments", given.get("arguments", "{}"))
    return MockCall(name=name, arguments=arguments)


def _as_json(where: str, arguments: object) -> str:
    if isinstance(arguments, str):
        return arguments  # as it is: a model may write what is no JSON
    if not isinstance(arguments, Mapping):
        problem = (
            "is neither a table nor JSON text; "
            """write { city = "Paris" } or '{"city": "Paris"}'"""
        )
        raise InvalidValueError(where, arguments, problem)
    try:
        return json.dumps(dict(arguments))
    except (TypeError, ValueError) as error:
        problem = "holds what JSON cannot say; write numbers, texts, arrays and tables"
        raise InvalidValueError(where, arguments, problem) from error


@attrs.frozen(kw_only=True)
class MockScript:
    """How the mock runtime behaves; each field is an option of a deployment.

    Attributes:
        reply: the answer; None: the last user message's text comes back, or the
            plainest value of the JSON Schema that the request asks for.
        tokens: make the answer exactly this long, by repeating or cutting it.
        reasoning: what it thinks before the answer, shown and paid for; None:
            it does not reason.
        tool_calls: tools that it calls behind the text, where the request
            offers them and does not bring a tool's result; each a table with
            the tool's ``name`` and its ``arguments``, a table or JSON text
            (left out: none).
        refusal: what it says instead of an answer; None: it answers.
        json: whether it can be asked for JSON.
        delay_s: wait before each token, in seconds.
        load_s: how long a start takes, in seconds.
        fail_after: raise the error of ``fail_kind`` after this many tokens; 0:
            before the first.  An answer that ends earlier does not fail.
        fail_kind: the ``kind`` of the error to raise.
        hang_after: stop answering after this many tokens, until the block is
            left.  An answer that ends earlier does not hang.
        max_concurrency: what the runner's capabilities say.
    """

    reply: str | None = attrs.field(default=None, validator=_optional_text)
    tokens: int | None = attrs.field(default=None, validator=_optional_count)
    reasoning: str | None = attrs.field(default=None, validator=_optional_text)
    tool_calls: tuple[MockCall, ...] = attrs.field(default=(), converter=_as_calls)
    refusal: str | None = attrs.field(default=None, validator=_optional_text)
    json: bool = attrs.field(default=False, validator=is_switch)
    delay_s: float = attrs.field(default=0.0, validator=not_negative)
    load_s: float = attrs.field(default=0.0, validator=not_negative)
    fail_after: int | None = attrs.field(default=None, validator=_optional_count)
    fail_kind: str = attrs.field(default=UpstreamError.kind, validator=error_kind)
    hang_after: int | None = attrs.field(default=None, validator=_optional_count)
    max_concurrency: int = attrs.field(default=8, validator=at_least(1))

    @property
    def features(self) -> frozenset[Feature]:
        """What a request to it may need."""
        found = {Feature.CHAT}
        if self.tool_calls:
            found |= {Feature.TOOLS, Feature.PARALLEL_TOOLS}
        if self.reasoning is not None:
            found |= {Feature.REASONING}
        if self.json:
            found |= {Feature.JSON_OBJECT, Feature.STRUCTURED_OUTPUT}
        return frozenset(found)

    def options(self) -> dict[str, OptionValue]:
        """Return the deployment options that :func:`script_from_options` reads back.

        >>> MockScript(reply="hi", tokens=3).options()
        {'reply': 'hi', 'tokens': 3}
        """
        given: dict[str, OptionValue] = {}
        for field in attrs.fields(MockScript):
            value = getattr(self, field.name)
            if value != field.default:
                given[field.name] = value
        if self.tool_calls:
            given["tool_calls"] = [attrs.asdict(call) for call in self.tool_calls]
        return given

    def error(self) -> InferenceError:
        """Return the error that the script fails with."""
        return decode(ErrorRecord(self.fail_kind, "the mock fails as its script says"))


def script_from_options(options: Mapping[str, OptionValue]) -> MockScript:
    """Read a deployment's options.

    Raises:
        ConfigError: names the option, its value and what is allowed.
    """
    known = [field.name for field in attrs.fields(MockScript)]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)}"
            raise ConfigError(f"the mock runtime has no option {name!r}; {hint}")
    make: Callable[..., MockScript] = MockScript
    try:
        return make(**options)
    except InvalidValueError as error:
        raise ConfigError(f"option {error}") from error


@attrs.frozen
class MockAnswer:
    """One answer, token by token.

    Attributes:
        tokens: the text's, in order; joined they are the text.
        finish_reason: why it ends.
        thoughts: the tokens of what it thinks first.
        calls: the tools that it calls last.
        refusal: the tokens of what it says instead of an answer.
    """

    tokens: tuple[str, ...]
    finish_reason: FinishReason
    thoughts: tuple[str, ...] = ()
    calls: tuple[MockCall, ...] = ()
    refusal: tuple[str, ...] = ()

    def pieces(self) -> Iterator[TokenChunk]:
        """Yield what is sent before the end, a token each, as answer 0's."""
        for thought in self.thoughts:
            yield TokenChunk(reasoning=ReasoningDelta(text=thought))
        for token in self.tokens:
            yield TokenChunk(text=token)
        for token in self.refusal:
            yield TokenChunk(refusal=token)
        for index, call in enumerate(self.calls):
            begun = ToolCallDelta(index=index, id=f"call_{index}", name=call.name)
            yield TokenChunk(tool_calls=(begun,))
            for token in tokenize(call.arguments):
                more = ToolCallDelta(index=index, arguments=token)
                yield TokenChunk(tool_calls=(more,))


def plan_answer(script: MockScript, batch: ExecuteBatch) -> MockAnswer:
    """Return what each of the request's ``n`` answers is.

    A stop string ends the answer in front of itself; ``max_tokens`` ends its
    text after so many tokens, whichever comes first.
    """
    thoughts = tokenize(script.reasoning or "")
    if script.refusal is not None:
        refusal = tokenize(script.refusal)
        return MockAnswer((), FinishReason.CONTENT_FILTER, thoughts, refusal=refusal)
    tokens = _stretch(tokenize(_text(script, batch)), script.tokens)
    stopped = tokenize(_cut("".join(tokens), batch.sampling.stop))
    limit = batch.sampling.max_tokens
    if limit is not None and len(stopped) > limit:
        return MockAnswer(stopped[:limit], FinishReason.LENGTH, thoughts)
    calls = _calls(script, batch)
    finish = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
    return MockAnswer(stopped, finish, thoughts, calls)


def count_usage(batch: ExecuteBatch, answers: int, answer: MockAnswer) -> Usage:
    """Return the tokens of a request that was answered in full."""
    prompt = sum(len(tokenize(message.text)) for message in batch.messages)
    said = sum(1 for _ in answer.pieces())
    return Usage(
        input_uncached=prompt,
        output_text=answers * (said - len(answer.thoughts)),
        reasoning=answers * len(answer.thoughts),
    )


def tokenize(text: str) -> tuple[str, ...]:
    r"""Split text into words, each with the white space in front of it.

    >>> tokenize("to be  or\n")
    ('to', ' be', '  or\n')
    """
    return tuple(re.findall(r"\s*\S+(?:\s+\Z)?", text))


def _text(script: MockScript, batch: ExecuteBatch) -> str:
    if script.reply is not None:
        return script.reply
    wanted = batch.response_format
    if wanted is None or wanted.kind is FormatKind.TEXT:
        # Who calls a tool says nothing of its own beside it.
        return "" if _calls(script, batch) else _last_user_text(batch)
    schema = {} if wanted.schema is None else msgspec.json.decode(wanted.schema)
    return msgspec.json.encode(example_of({"type": "object", **schema})).decode()


def _calls(script: MockScript, batch: ExecuteBatch) -> tuple[MockCall, ...]:
    """Return the calls that the request allows; the rest of them are not made."""
    last = batch.messages[-1]
    choice = batch.tool_choice
    if last.role is Role.TOOL or (choice and choice.mode is ToolMode.NONE):
        return ()
    offered = {tool.name for tool in batch.tools if isinstance(tool, Tool)}
    if choice is not None and choice.names:
        offered &= set(choice.names)
    calls = tuple(call for call in script.tool_calls if call.name in offered)
    return calls[:1] if batch.parallel_tool_calls is False else calls


def _last_user_text(batch: ExecuteBatch) -> str:
    spoken = (m.text for m in reversed(batch.messages) if m.role is Role.USER)
    return next(spoken, "")


def _stretch(tokens: tuple[str, ...], length: int | None) -> tuple[str, ...]:
    if length is None:
        return tokens
    if not tokens:
        tokens = ("word",)
    if length == 0:
        return ()
    # Repeated text needs a space where its end meets its start.
    return (tokens[0], *(_spaced(tokens[i % len(tokens)]) for i in range(1, length)))


def _spaced(token: str) -> str:
    return token if token[0].isspace() else f" {token}"


def _cut(text: str, stop: tuple[str, ...]) -> str:
    ends = [text.find(word) for word in stop if word and word in text]
    return text[: min(ends)] if ends else text
