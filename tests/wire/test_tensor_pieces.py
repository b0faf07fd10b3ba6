"""Long lists of numbers are read and written in pieces, as if they were whole."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.tensors import Datatype, Tensor
from atomr_infer.wire.open_inference.elements import as_json, of_json
from atomr_infer.wire.open_inference.pieces import Span, cut

LONG = 150_000
"""So many numbers are some pieces."""


def nested(depth: int) -> st.SearchStrategy[Any]:
    items: st.SearchStrategy[Any] = st.integers(-10, 1000)
    for _ in range(depth - 1):
        items = st.lists(items, min_size=1, max_size=6)
    return st.lists(items, max_size=6)


def put_together(text: bytes, whole: Span, depth: int, piece_bytes: int) -> list[Any]:
    found: list[Any] = []
    for span in cut(text, whole, depth, piece_bytes=piece_bytes):
        part = text[span.begin : span.end]
        if span.is_one and depth > 1:
            found.append(put_together(text, span, depth - 1, piece_bytes))
        else:
            found += json.loads(b"[%b]" % part)
    return found


@given(
    value=st.integers(1, 4).flatmap(lambda d: st.tuples(st.just(d), nested(d))),
    piece_bytes=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 3]),
)
def test_the_parts_of_a_list_are_the_list(
    value: tuple[int, list[Any]], piece_bytes: int, indent: int | None
) -> None:
    depth, elements = value
    text = json.dumps(elements, indent=indent).encode()
    whole = Span(0, len(text))
    assert put_together(text, whole, depth, piece_bytes) == elements


def read(data: object, *shape: int, kind: Datatype = Datatype.FP32) -> bytes:
    return of_json("x", msgspec.Raw(msgspec.json.encode(data)), kind, shape)


@pytest.mark.parametrize(
    ("shape", "rows"),
    [((LONG,), None), ((1, LONG), None), ((1, LONG), LONG), ((LONG, 1), 1)],
    ids=["flat", "flat in two dimensions", "one long row", "short rows"],
)
def test_many_numbers_are_read_as_few_are(
    shape: tuple[int, ...], rows: int | None
) -> None:
    numbers = [float(n) for n in range(LONG)]
    data: Any = numbers
    if rows is not None:
        data = [numbers[at : at + rows] for at in range(0, LONG, rows)]
    assert read(data, *shape) == struct.pack(f"<{LONG}f", *numbers)


def test_lists_that_are_empty_have_none_in_them() -> None:
    assert read([[]] * LONG, LONG, 0, 5) == b""
    said = "has lists of another length than 0 at depth 1; the shape is"
    with pytest.raises(InvalidRequestError, match=said):
        read([[]] * LONG + [[1]], LONG + 1, 0, 5)


def test_what_is_wrong_far_inside_is_said_as_ever() -> None:
    rows: list[list[Any]] = [[1, 2]] * LONG
    said = "has lists of another length than 2 at depth 1"
    with pytest.raises(InvalidRequestError, match=said):
        read([*rows, [1], [1, 2, 3]], LONG + 2, 2)
    with pytest.raises(InvalidRequestError, match="than 150000 at depth 0"):
        read([*rows[1:]], LONG, 2)
    with pytest.raises(InvalidRequestError, match="must be a list of numbers"):
        read([*rows, [1, "2"]], LONG + 1, 2)
    with pytest.raises(InvalidRequestError, match="must be a list of numbers"):
        read([*rows, 1.0], LONG + 1, 2)
    with pytest.raises(InvalidRequestError, match="must be a list of numbers"):
        read([*rows, [[1, 2]]], LONG + 1, 2)
    with pytest.raises(InvalidRequestError, match="has 300000 elements"):
        read([1] * 2 * LONG, LONG)
    with pytest.raises(InvalidRequestError, match="holds what is no INT8"):
        read([1] * LONG + [128], LONG + 1, kind=Datatype.INT8)


@pytest.mark.parametrize(
    ("element", "count"), [(b"[1.5]", 150_000), (b"1.5", 500_000)], ids=["rows", "flat"]
)
def test_only_a_piece_of_what_is_read_is_objects_at_a_time(
    element: bytes, count: int
) -> None:
    body = msgspec.Raw(b"[%b]" % b",".join([element] * count))
    tracemalloc.start()
    try:
        of_json("x", body, Datatype.FP32, (count, 1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A piece takes 7 MB, and all of it at once took 20.
    assert peak < 12_000_000


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (Datatype.INT64, [-1, 2**62], [-1, 2**62]),
        (Datatype.BOOL, [True, False], [True, False]),
        (Datatype.FP64, [1.5, float("inf")], [1.5, None]),
        (Datatype.FP32, [], []),
    ],
)
def test_numbers_are_written_as_few_are_and_as_many(
    kind: Datatype, values: list[Any], told: list[Any]
) -> None:
    for times in (1, 100_000):
        count = len(values) * times
        data = struct.pack(f"<{count}{kind.code}", *values * times)
        written = msgspec.json.encode(as_json(Tensor("y", kind, (count,), data)))
        assert json.loads(written) == told * times
