"""Tools for models whose chat template knows none: they are told in words.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from atomr_infer.runtimes.decoding.calls import CLOSES, OPENS

if TYPE_CHECKING:
    from collections.abc import Sequence

Turn = dict[str, Any]

_TOLD = (
    "You can call functions. These are their signatures, one a line:\n{tools}\n"
    "To call one, answer with a JSON object of its name and arguments between tags:\n"
    '{opens}{{"name": "NAME", "arguments": {{}}}}{closes}'
)


def in_words(turns: Sequence[Turn], tools: Sequence[Turn]) -> list[Turn]:
    """Return the turns of a conversation with its tools and calls as text.

    Args:
        turns: as a template reads them, with calls and results.
        tools: what may be called; none: what was called is told all the same.
    """
    told = [_turn(turn) for turn in turns]
    if not tools:
        return told
    lines = "\n".join(msgspec.json.encode(tool["function"]).decode() for tool in tools)
    text = _TOLD.format(tools=lines, opens=OPENS, closes=CLOSES)
    if told and told[0]["role"] == "system":
        return [{**told[0], "content": f"{told[0]['content']}\n\n{text}"}, *told[1:]]
    return [{"role": "system", "content": text}, *told]


def _turn(turn: Turn) -> Turn:
    if turn["role"] == "tool":
        content = f"<tool_response>\n{turn['content']}\n</tool_response>"
        return {"role": "user", "content": content}
    calls = "\n".join(
        OPENS + msgspec.json.encode(call["function"]).decode() + CLOSES
        for call in turn.get("tool_calls", ())
    )
    if not calls:
        return turn
    said = f"{turn['content']}\n{calls}" if turn["content"] else calls
    return {"role": turn["role"], "content": said}
