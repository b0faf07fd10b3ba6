"""Answers that are JSON: which tokens may come next, as llguidance works it out.

A token is drawn as ever.  Where the schema does not allow it, it is drawn again of
those that are allowed.

A schema is worked out in the thread that asks, which cannot be ended; so one that may
take long is tried in a process first (``schema_trial``), which can.

Source: llguidance, "JSON Schema".
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import llguidance
import numpy as np

from atomr_infer.errors import EngineError, InvalidRequestError
from atomr_infer.model.asks import FormatKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from llguidance._lib import JsonCompileOptions

    from atomr_infer.model.asks import ResponseFormat
    from atomr_infer.runtimes.decoding.sampling import Logits
    from atomr_infer_ort.tokens import ModelTokenizer

_ANY_OBJECT = '{"type": "object"}'

# On one line, as most JSON is that a model was shown in answers: one that likes blanks
# would write them until its answer is full, and a small one at odd places.
_BLANKS: JsonCompileOptions = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}

_MOST_BYTES = 256 * 1024
"""Of a schema."""

_SURE_BYTES = 8 * 1024
"""So few can be worked out in a moment, unless a word of these is among them: what is
the case for two rules at once is looked for among all combinations of their parts."""

_UNSURE = re.compile(
    r'\\|"(?:allOf|oneOf|not|if|dependent\w*|pattern\w*|propertyNames|format'
    r'|contains|unevaluated\w*|\$dynamicRef|multipleOf)"'
)

TRIAL_S = 5.0
"""How long a schema may take to be worked out."""

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
        self._tried: dict[bytes, None] = {}

    @cached_property
    def _words(self) -> llguidance.LLTokenizer:
        # With a large vocabulary it takes a second, and few requests want it.
        return llguidance.LLTokenizer(
            self._tokenizer.text, eos_token=sorted(self._ends)
        )

    def for_format(
        self, form: ResponseFormat | None
    ) -> Callable[[], Constraint] | None:
        """Return what makes a constraint for each answer; None: anything may come.

        Blocks, for seconds where a schema is large; what is returned does not.

        Raises:
            InvalidRequestError: the schema says what cannot be kept, is too large, or
                takes too long to be worked out.
        """
        if form is None or form.kind is FormatKind.TEXT:
            return None
        schema = _ANY_OBJECT if form.schema is None else bytes(form.schema).decode()
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

    def _try(self, schema: str) -> None:
        """Work out a schema that may take long where that can be ended.

        Raises:
            InvalidRequestError: it takes too long, or cannot be kept.
        """
        if len(schema) <= _SURE_BYTES and _UNSURE.search(schema) is None:
            return
        key = hashlib.sha256(schema.encode()).digest()
        if key in self._tried:
            return
        problem = tried(schema)
        if problem:
            raise _refused(problem)
        self._tried[key] = None
        while len(self._tried) > _REMEMBERED:
            # Another thread may have taken the same one.
            self._tried.pop(next(iter(self._tried)), None)


def tried(schema: str, *, within_s: float = TRIAL_S) -> str:
    """Return why a schema cannot be kept to, as another process finds; "": it can.

    Blocks, for ``within_s`` at most.
    """
    try:
        ran = subprocess.run(
            [sys.executable, "-P", _TRIAL],
            input=json.dumps([schema, _BLANKS]).encode(),
            capture_output=True,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it takes more than {within_s:g} s to be worked out; make it simpler"
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
