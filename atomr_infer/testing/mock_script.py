"""What the mock runtime answers, decided before the first token is sent.

A word is a token, with the white space in front of it.  So the answer to every
request is known in advance, and a test can state it.

Pure.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import (
    ConfigError,
    ErrorRecord,
    InferenceError,
    UpstreamError,
    decode,
)
from atomr_infer.model.batch import ExecuteBatch, FinishReason, Role, Usage
from atomr_infer.model.validation import InvalidValueError, at_least

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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


_optional_count = attrs.validators.optional(at_least(0))


@attrs.frozen(kw_only=True)
class MockScript:
    """How the mock runtime behaves; each field is an option of a deployment.

    Attributes:
        reply: the answer; None: the last user message's text comes back.
        tokens: make the answer exactly this long, by repeating or cutting it.
        delay_s: wait before each token, in seconds.
        load_s: how long a start takes, in seconds.
        fail_after: raise the error of ``fail_kind`` after this many tokens; 0:
            before the first.  An answer that ends earlier does not fail.
        fail_kind: the ``kind`` of the error to raise.
        hang_after: stop answering after this many tokens, until the block is
            left.  An answer that ends earlier does not hang.
        max_concurrency: what the runner's capabilities say.
    """

    reply: str | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(is_text),
    )
    tokens: int | None = attrs.field(default=None, validator=_optional_count)
    delay_s: float = attrs.field(default=0.0, validator=not_negative)
    load_s: float = attrs.field(default=0.0, validator=not_negative)
    fail_after: int | None = attrs.field(default=None, validator=_optional_count)
    fail_kind: str = attrs.field(default=UpstreamError.kind, validator=error_kind)
    hang_after: int | None = attrs.field(default=None, validator=_optional_count)
    max_concurrency: int = attrs.field(default=8, validator=at_least(1))

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
        tokens: what is sent, in order; joined they are the text.
        finish_reason: why it ends.
    """

    tokens: tuple[str, ...]
    finish_reason: FinishReason


def plan_answer(script: MockScript, batch: ExecuteBatch) -> MockAnswer:
    """Return what each of the request's ``n`` answers is.

    A stop string ends the answer in front of itself; ``max_tokens`` ends it
    after so many tokens, whichever comes first.
    """
    text = script.reply if script.reply is not None else _last_user_text(batch)
    tokens = _stretch(tokenize(text), script.tokens)
    stopped = tokenize(_cut("".join(tokens), batch.sampling.stop))
    limit = batch.sampling.max_tokens
    if limit is not None and len(stopped) > limit:
        return MockAnswer(stopped[:limit], FinishReason.LENGTH)
    return MockAnswer(stopped, FinishReason.STOP)


def count_usage(batch: ExecuteBatch, answers: int, answer: MockAnswer) -> Usage:
    """Return the tokens of a request that was answered in full."""
    prompt = sum(len(tokenize(message.text)) for message in batch.messages)
    return Usage(input_uncached=prompt, output_text=answers * len(answer.tokens))


def tokenize(text: str) -> tuple[str, ...]:
    r"""Split text into words, each with the white space in front of it.

    >>> tokenize("to be  or\n")
    ('to', ' be', '  or\n')
    """
    return tuple(re.findall(r"\s*\S+(?:\s+\Z)?", text))


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
