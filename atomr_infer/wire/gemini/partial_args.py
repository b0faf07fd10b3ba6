r"""Arguments of a tool call that come in pieces, each with its place.

A model that streams arguments names each value's place with a JSON path
(``$.location.city``, ``$.days[0]``); texts come in several pieces, which are
joined.

>>> args = PartialArgs()
>>> args.set("$.city", "Par", more=True); args.set("$.city", "is", more=False)
>>> args.set("$.days[0]", 1.0, more=False)
>>> args.value
{'city': 'Paris', 'days': [1.0]}

Pure.

Source: Vertex AI, "Streaming function call arguments"; RFC 9535, 2.3.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from atomr_infer.errors import UpstreamProtocolError

JsonValue = Any
"""A JSON value, decoded; it has no narrower type."""

_STEP = re.compile(
    r"""\.(?P<name>[^.\[\]]+) | \[(?P<index>[0-9]{1,6})\]
    | \[\s*(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\s*\]""",
    re.VERBOSE,
)
_MAX_ITEMS = 10_000


class PartialArgs:
    """The arguments so far.

    Attributes:
        value: the object that the pieces make.
    """

    def __init__(self) -> None:
        self.value: dict[str, JsonValue] = {}
        self._open: str | None = None

    def set(self, path: str, value: JsonValue, *, more: bool) -> None:
        """Take a value, or one more piece of a text.

        Args:
            path: its place.
            value: the value.
            more: True when the next piece belongs to the same text.

        Raises:
            UpstreamProtocolError: the place cannot be in these arguments.
        """
        steps = _steps(path)
        joined = self._open == path and isinstance(value, str)
        self._open = path if more else None
        parent: JsonValue = self.value
        for step, following in pairwise(steps):
            parent = _child(parent, step, [] if isinstance(following, int) else {})
        last = steps[-1]
        if joined:
            value = f"{_child(parent, last, '')}{value}"
        _put(parent, last, value)


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    at = 1
    while path.startswith("$") and at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            break
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(match["name"] or match["quoted"])
        at = match.end()
    if at != len(path) or not steps:
        raise _misplaced()
    return steps


def _child(parent: JsonValue, step: str | int, fresh: JsonValue) -> JsonValue:
    if isinstance(parent, dict) and isinstance(step, str):
        return parent.setdefault(step, fresh)
    if isinstance(parent, list) and isinstance(step, int):
        _lengthen(parent, step)
        if parent[step] is None:
            parent[step] = fresh
        return parent[step]
    raise _misplaced()


def _put(parent: JsonValue, step: str | int, value: JsonValue) -> None:
    _child(parent, step, value)
    parent[step] = value


def _lengthen(items: list[JsonValue], index: int) -> None:
    if index >= _MAX_ITEMS:
        raise _misplaced()
    items.extend([None] * (index + 1 - len(items)))


def _misplaced() -> UpstreamProtocolError:
    return UpstreamProtocolError(
        "the upstream's pieces of a tool call's arguments do not fit together",
        code="malformed_event",
    )
