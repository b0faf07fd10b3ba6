"""Tool calls of OpenAI-like upstreams are numbered densely, whatever they send."""

from __future__ import annotations

import pytest

from atomr_infer.model.batch import ExecuteBatch, Message, Role, ToolCallDelta
from atomr_infer.wire.openai.passed_calls import PassedCalls
from atomr_infer.wire.openai.tool_index import ToolCallNumbers
from atomr_infer.wire.openai.upstream_delta import NO_INDEX
from atomr_infer.wire.openai.upstream_pass import ChatPass
from atomr_infer.wire.sse import SseEvent

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
        pytest.param(
            [(0, "a", "f", ""), (0, "b", None, "{"), (0, "c", None, "}")],
            [(0, "a", "f", ""), (0, None, None, "{"), (0, None, None, "}")],
            id="a new id without a name goes on with the call at its index",
        ),
        pytest.param(
            [(0, "a", "f", ""), (1, "b", "g", ""), (0, "c", None, "{}")],
            [(0, "a", "f", ""), (1, "b", "g", ""), (0, None, None, "{}")],
            id="with that one, not with the last",
        ),
    ],
)
def test_t4_a_new_id_is_a_new_index(sent: list[Piece], seen: list[Piece]) -> None:
    assert numbered(*sent) == seen


# --- in a stream that is passed on -------------------------------------------

CHUNK = b'data: {"id": "c", "choices":[{"index":%d,"delta":{"tool_calls":%b}}]}\n\n'
BEGUN = (
    b'[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"%b"}}]'
)


def passed(*frames: bytes) -> list[bytes]:
    batch = ExecuteBatch(
        request_id="r", model="m", messages=(Message(Role.USER, "hi"),), stream=True
    )
    reader = ChatPass(batch)
    return [b"".join(chunk.data for chunk in reader.feed(frame)) for frame in frames]


@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(
            [BEGUN % b"", b'[{"index":0,"function":{"arguments":"{}"}}]'],
            id="as OpenAI does",
        ),
        pytest.param([BEGUN % b"{", BEGUN % b"}"], id="an id that is repeated"),
        pytest.param(
            [
                BEGUN % b"",
                b'[{"index":0,"id":"b","function":{"name":null,"arguments":"{"}}]',
                b'[{"index":0,"id":"c","function":{"name":null,"arguments":"}"}}]',
            ],
            id="a new id with each piece",
        ),
        pytest.param([b"null", b"[]", BEGUN % b"{}"], id="members that say nothing"),
        pytest.param([b'[{"index":"0","id":"a"}]', b"7"], id="what cannot be read"),
    ],
)
def test_calls_with_numbers_are_passed_on_byte_for_byte(calls: list[bytes]) -> None:
    frames = [CHUNK % (0, call) for call in calls]
    assert passed(*frames) == frames


@pytest.mark.parametrize("index", [b"", b'"index":0,', b'"index":null,'])
def test_t4_a_new_id_is_a_new_index_in_what_is_passed_on(index: bytes) -> None:
    second = b'[{%b"id":"b","x":1.50,"function":{"name":"g","arguments":""}}]' % index
    rest = b'[{%b"function":{"arguments":"{}"}}]' % index
    _, begun, ended = passed(*(CHUNK % (0, c) for c in (BEGUN % b"{}", second, rest)))
    for frame, member in ((begun, b'"x":1.50'), (ended, b'"arguments":"{}"')):
        assert b'"index":1' in frame
        assert member in frame
        assert frame.startswith(b'data: {"id":"c","choices":[{"index":0,"delta":{')
        assert frame.count(b"\n") == 2


def test_t4_calls_of_two_answers_are_numbered_apart() -> None:
    frames = [CHUNK % (index, BEGUN % b"{}") for index in (0, 1)]
    assert passed(*frames) == frames


def test_a_call_without_an_id_is_passed_on_with_one() -> None:
    nameless = b'[{"index":0,"function":{"name":"f","arguments":"{}"}}]'
    (frame,) = passed(CHUNK % (0, nameless))
    assert b'"id":"call_r_0_0"' in frame


@pytest.mark.parametrize(
    "unreadable",
    [
        pytest.param(b'{"index":1,"delta":{"tool_calls":[7]}}', id="no call"),
        pytest.param(
            b'{"index":1,"delta":{"tool_calls":[{"id":"z","index":1,"\xff":1}]}}',
            id="no text",
        ),
    ],
)
def test_t4_calls_beside_those_that_cannot_be_read_are_numbered(
    unreadable: bytes,
) -> None:
    call = BEGUN.replace(b'"a"', b'"b"') % b"{}"
    choice = b'{"index":0,"delta":{"tool_calls":%b}}' % call
    broken = SseEvent(b'{"choices":[%b,%b]}' % (choice, unreadable))
    calls = PassedCalls("r")
    calls.renumbered(SseEvent(b'{"choices":[%b]}' % choice.replace(b'"b"', b'"a"')))
    written = calls.renumbered(broken)
    assert written is not None
    assert b'"index":1,"id":"b"' in written
    assert unreadable in written


def test_t4_an_event_that_cannot_be_written_anew_takes_no_number() -> None:
    data = b'{"choices":[{"delta":{"tool_calls":%b}}]%b}'
    calls = PassedCalls("r")
    broken = SseEvent(data % (b'[{"function":{"name":"f"}}]', b',"\xff":1'))
    assert calls.renumbered(broken) is None
    written = calls.renumbered(SseEvent(data % (b'[{"function":{"name":"f"}}]', b"")))
    assert written is not None
    assert b'"index":0,"id":"call_r_0_0"' in written


def test_t4_an_event_of_several_lines_stays_one_event() -> None:
    first, second = passed(
        CHUNK % (0, BEGUN % b"{}"),
        b'event: x\ndata: {"choices":[{"delta":\n'
        b'data: {"tool_calls":[{"id":"b"}]}}]}\n\n',
    )
    assert first
    assert second == (
        b"event: x\n"
        b'data: {"choices":[{"delta":{"tool_calls":[{"id":"b","index":1}]}}]}\n\n'
    )
