"""Answers that are JSON: which tokens may come next, as llguidance works it out.

A token is drawn as ever.  Where the schema does not allow it, it is drawn again of
those that are allowed.

A schema is worked out in the thread that asks, which cannot be ended; so one that may
take long is tried in a process first (``schema_trial``), which can.  Few are tried at
once, and what one found is remembered, so that the schemas of some do not take the
processor from those of others.

Source: llguidance, "JSON Schema".
"""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import llguidance
import numpy as np
import trio

from atomr_infer.errors import EngineError, InvalidRequestError, OverloadedError
from atomr_infer.model.asks import FormatKind
from atomr_infer.runtimes.decoding.schemas import ANY_OBJECT, BLANKS, may_take_long

if TYPE_CHECKING:
    from collections.abc import Callable

    from llguidance._lib import JsonCompileOptions

    from atomr_infer.model.asks import ResponseFormat
    from atomr_infer.runtimes.decoding.sampling import Logits
    from atomr_infer_ort.tokens import ModelTokenizer

_BLANKS = cast("JsonCompileOptions", BLANKS)

_MOST_BYTES = 256 * 1024
"""Of a schema."""

TRIAL_CPU_S = 5
"""How long a schema may take to be worked out: of the processor's time, which is the
same on a busy machine."""

TRIAL_WALL_S = 60.0
"""A bound on a trial that is given no processor."""

TRIALS = 2
"""At once, for one model."""

PATIENCE_S = 30.0
"""How long a schema waits for its trial."""

_TRIAL = str(Path(__file__).with_name("schema_trial.py"))

_REMEMBERED = 256

_LONGEST_TOLD = 300
"""The library may say a megabyte of why."""

_log = logging.getLogger(__name__)


class Schemas:
    """What a model's answers can be made to be like.

    Args:
        tokenizer: the model's.
        ends: the tokens that end its answers.
    """

    def __init__(self, tokenizer: ModelTokenizer, ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._ends = ends
        self._trials = trio.CapacityLimiter(TRIALS)
        self._found: dict[bytes, str] = {}

    @cached_property
    def _words(self) -> llguidance.LLTokenizer:
        # With a large vocabulary it takes a second, and few requests want it.
        return llguidance.LLTokenizer(
            self._tokenizer.text, eos_token=sorted(self._ends)
        )

    async def worked_out(
        self, form: ResponseFormat | None
    ) -> Callable[[], Constraint] | None:
        """Return what :meth:`for_format` does, from a thread.

        Raises:
            InvalidRequestError: as there.
            OverloadedError: too many other schemas are being tried.

        Cancellation: waits for the end of the thread.
        """
        if form is None or not self._needs_trial(_text_of(form)):
            return await trio.to_thread.run_sync(self.for_format, form)
        try:
            with trio.fail_after(PATIENCE_S):
                await self._trials.acquire()
        except trio.TooSlowError as error:
            raise _busy() from error
        try:
            return await trio.to_thread.run_sync(self.for_format, form)
        finally:
            self._trials.release()

    def for_format(
        self, form: ResponseFormat | None
    ) -> Callable[[], Constraint] | None:
        """Return what makes a constraint for each answer; None: anything may come.

        Blocks, for seconds where a schema is large; what is returned does not.

        Raises:
            InvalidRequestError: the schema says what cannot be kept, is too large, or
                takes too long to be worked out.
            OverloadedError: its trial was given no processor.
        """
        if form is None or form.kind is FormatKind.TEXT:
            return None
        schema = _text_of(form)
        if len(schema) > _MOST_BYTES:
            raise _refused(
                f"it has {len(schema)} bytes; at most {_MOST_BYTES} are taken"
            )
        self._try(schema)
        matcher = llguidance.LLMatcher
        try:
            grammar = matcher.grammar_from_json_schema(schema, overrides=_BLANKS)
        except ValueError as error:
            raise _refused(str(error)) from error
        first = matcher(self._words, grammar, log_level=0)
        if first.is_error():
            raise _refused(first.get_error())
        size = self._words.vocab_size
        return lambda: Constraint(first.deep_copy(), self._ends, size=size)

    def _needs_trial(self, schema: str) -> bool:
        return _is_unsure(schema) and _key(schema) not in self._found

    def _try(self, schema: str) -> None:
        """Work out a schema that may take long where that can be ended.

        Raises:
            InvalidRequestError: it takes too long, or cannot be kept.
            OverloadedError: the trial was given no processor.
        """
        if not _is_unsure(schema):
            return
        key = _key(schema)
        problem = self._found.get(key)
        if problem is None:
            problem = tried(schema)
        self._remember(key, problem)
        if problem:
            raise _refused(problem)

    def _remember(self, key: bytes, problem: str) -> None:
        self._found.pop(key, None)  # the latest is the last
        self._found[key] = problem
        while len(self._found) > _REMEMBERED:
            # Another thread may have taken the same one.
            self._found.pop(next(iter(self._found)), None)


def tried(
    schema: str, *, cpu_s: int = TRIAL_CPU_S, wall_s: float = TRIAL_WALL_S
) -> str:
    """Return why a schema cannot be kept to, as another process finds; "": it can.

    Blocks, for ``wall_s`` at most.

    Raises:
        OverloadedError: the process came to no end for another reason than its schema.
    """
    try:
        ran = subprocess.run(
            [sys.executable, "-P", _TRIAL],
            input=json.dumps([schema, _BLANKS, cpu_s]).encode(),
            capture_output=True,
            timeout=wall_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _busy() from error
    if ran.returncode == -signal.SIGXCPU:
        return f"it takes more than {cpu_s} s to be worked out; make it simpler"
    if ran.returncode == -signal.SIGKILL:  # the machine has no memory left
        raise _busy()
    if ran.returncode:
        _log.warning("a schema's trial failed: %s", ran.stderr.decode(errors="replace"))
        return "it could not be worked out; make it simpler"
    return str(json.loads(ran.stdout))


class Constraint:
    """What may come next of one answer.

    Args:
        matcher: where the answer begins; nobody else's.
        ends: the tokens that end the answer.
        size: how many tokens the matcher knows; a model may have more.
    """

    def __init__(
        self, matcher: llguidance.LLMatcher, ends: frozenset[int], *, size: int
    ) -> None:
        self._matcher = matcher
        self._ends = ends
        self._size = size

    def allows(self, token: int) -> bool:
        """Whether a token may come next.

        Raises:
            EngineError: the schema became too complex.
        """
        if self._is_whole():
            return token in self._ends
        # A matcher that is asked for a token which it does not know is broken then.
        return token < self._size and self._matcher.validate_tokens([token]) == 1

    def masked(self, logits: Logits) -> Logits:
        """Return logits, those of tokens that may not come at minus infinity.

        Raises:
            EngineError: the schema became too complex.
        """
        allowed = np.zeros(len(logits), np.bool_)
        if self._is_whole():
            allowed[sorted(self._ends)] = True
        else:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            self._check()
            known = np.unpackbits(bits, bitorder="little")[: len(logits)]
            allowed[: len(known)] = known
        return np.where(allowed, logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        """Go on behind a token, which may come.

        Raises:
            EngineError: the schema became too complex.
        """
        if not self._is_whole():
            self._matcher.consume_token(token)
            self._check()

    def _is_whole(self) -> bool:
        """Whether nothing but an end may come; a matcher that broke says so, too."""
        self._check()
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            problem = " ".join(self._matcher.get_error().split())
            raise EngineError(f"the answer cannot be kept to its schema: {problem}")


def _refused(problem: str) -> InvalidRequestError:
    told = " ".join(problem[:_LONGEST_TOLD].split())
    return InvalidRequestError(
        f"this schema cannot be kept to: {told}",
        param="response_format",
    )


def _busy() -> OverloadedError:
    return OverloadedError(
        "too many schemas are being worked out; try again in a moment",
        param="response_format",
    )


def _text_of(form: ResponseFormat) -> str:
    return ANY_OBJECT if form.schema is None else bytes(form.schema).decode()


def _is_unsure(schema: str) -> bool:
    return len(schema) <= _MOST_BYTES and may_take_long(schema)


def _key(schema: str) -> bytes:
    return hashlib.sha256(schema.encode()).digest()
