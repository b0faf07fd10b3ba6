"""Working a schema out in a process of its own, to see that it comes to an end.

``python -P schema_trial.py`` reads a schema and says what is wrong with it, in JSON.
The library's work on some schemas of a few hundred bytes doubles with each of their
parts, and a thread that is at it can be neither bounded nor ended; a process can.

Run as a file: it imports nothing but the library.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

import llguidance

MOST_BYTES = 2 * 1024**3
LONGEST_SAID = 300


def problem_of(schema: str, blanks: Any) -> str:  # noqa: ANN401  the library's
    """Return why a schema cannot be kept to; "": it can."""
    matcher = llguidance.LLMatcher
    try:
        grammar = matcher.grammar_from_json_schema(schema, overrides=blanks)
    except ValueError as error:
        return str(error) or "it is no schema"
    return str(matcher.validate_grammar(grammar))


def main() -> None:
    """Read, try, tell."""
    schema, blanks, cpu_s = json.load(sys.stdin)
    # The first of both ends it with a signal of its own, the other for certain.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    json.dump(problem_of(schema, blanks)[:LONGEST_SAID], sys.stdout)


if __name__ == "__main__":
    main()
