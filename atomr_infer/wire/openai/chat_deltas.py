"""Put streamed delta members together again: reasoning, refusals, tool calls.

A string member (``reasoning_content``, ``refusal``) grows by concatenation; a
tool call grows by its ``index``, its ``arguments`` piece by piece; any other
member keeps the last value that was sent.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.batch import RawJson


class DeltaMerger:
    """Members of one choice's deltas, merged in order of arrival."""

    def __init__(self) -> None:
        self._strings: dict[str, list[str]] = {}
        self._others: dict[str, RawJson] = {}
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, extra: Mapping[str, RawJson]) -> None:
        """Take the members of the next delta."""
        for name, raw in extra.items():
            if name == "tool_calls":
                self._add_calls(raw)
            elif raw.startswith(b'"'):
                text = msgspec.json.decode(raw, type=str)
                self._strings.setdefault(name, []).append(text)
            else:
                self._others[name] = raw

    def members(self) -> dict[str, RawJson]:
        """Return the merged members as raw JSON.

        >>> merger = DeltaMerger()
        >>> merger.add({"refusal": b'"I "'})
        >>> merger.add({"refusal": b'"will not."'})
        >>> merger.members()
        {'refusal': b'"I will not."'}
        """
        merged = dict(self._others)
        for name, pieces in self._strings.items():
            merged[name] = msgspec.json.encode("".join(pieces))
        if self._calls:
            calls = [self._calls[index] for index in sorted(self._calls)]
            merged["tool_calls"] = msgspec.json.encode(calls)
        return merged

    def _add_calls(self, raw: RawJson) -> None:
        pieces = msgspec.json.decode(raw, type=list[dict[str, Any]])
        for position, piece in enumerate(pieces):
            index = piece.pop("index", position)
            call = self._calls.setdefault(index, {})
            function = piece.pop("function", None) or {}
            call.update({k: v for k, v in piece.items() if v is not None})
            target = call.setdefault("function", {"name": "", "arguments": ""})
            target["name"] = function.get("name") or target["name"]
            target["arguments"] += function.get("arguments") or ""
