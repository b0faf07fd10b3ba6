"""Tool calls of OpenAI-like upstreams are numbered densely, whatever they send."""

from __future__ import annotations

import pytest

from atomr_infer.model.batch import ToolCallDelta
from atomr_infer.wire.openai.tool_index import ToolCallNumbers
from atomr_infer.wire.openai.upstream_delta import NO_INDEX

Piece = tuple[int, str | None, str | None, str]


def numbered(*pieces: Piece) -> list[Piece]:
    numbers = ToolCallNumbers("r")
    found = []
    for index, identity, name, arguments in pieces:
        delta = ToolCallDelta(index=index, id=identity, name=name, arguments=arguments)
        out = numbers.renumber(delta)
        found.append((out.index, out.id, out.name, out.arguments))
    return found


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        pytest.param(
            [(0, "a", "f", ""), (0, None, None, "{"), (0, None, None, "}")],
            [(0, "a", "f", ""), (0, None, None, "{"), (0, None, None, "}")],
            id="as OpenAI does",
        ),
        pytest.param(
            [(0, "a", "f", "{}"), (0, "b", "g", "{}")],
            [(0, "a", "f", "{}"), (1, "b", "g", "{}")],
            id="index 0 with a new id is a new call",
        ),
        pytest.param(
            [(NO_INDEX, "a", "f", "{}"), (NO_INDEX, "b", "g", "{}")],
            [(0, "a", "f", "{}"), (1, "b", "g", "{}")],
            id="whole calls without an index",
        ),
        pytest.param(
            [(1, "a", "f", ""), (4, "b", "g", ""), (1, None, None, "x")],
            [(0, "a", "f", ""), (1, "b", "g", ""), (0, None, None, "x")],
            id="gaps are closed",
        ),
        pytest.param(
            [(0, "a", "f", ""), (0, "a", "f", "{}")],
            [(0, "a", "f", ""), (0, None, None, "{}")],
            id="a repeated id and name are said once",
        ),
        pytest.param(
            [(NO_INDEX, "a", "f", ""), (NO_INDEX, None, None, "{}")],
            [(0, "a", "f", ""), (0, None, None, "{}")],
            id="a nameless piece goes on with the last call",
        ),
        pytest.param(
            [(0, None, "f", "{}"), (1, None, "g", "{}")],
            [(0, "call_r_0", "f", "{}"), (1, "call_r_1", "g", "{}")],
            id="a call without an id gets one",
        ),
        pytest.param(
            [(0, "a", None, ""), (0, None, "f", "{}")],
            [(0, "a", None, ""), (0, None, "f", "{}")],
            id="a name that comes late is kept",
        ),
        pytest.param(
            [(0, "a", "f", "{}"), (1, "a", "g", "{"), (1, "a", "g", "}")],
            [(0, "a", "f", "{}"), (1, "a", "g", "{"), (1, None, None, "}")],
            id="one id for two calls mixes them not",
        ),
        pytest.param(
            [(0, "a", "f", ""), (1, "a", "g", ""), (0, "a", "f", "{}")],
            [(0, "a", "f", ""), (1, "a", "g", ""), (0, None, None, "{}")],
            id="nor where their pieces alternate",
        ),
    ],
)
def test_t4_a_new_id_is_a_new_index(sent: list[Piece], seen: list[Piece]) -> None:
    assert numbered(*sent) == seen
