"""Patterns: what they accept, and how a failed test shows them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import pytest

from atomr.testing import ANYTHING, equal_to, like
from atomr.testing.matching import accepts, describe


@attrs.frozen
class Order:
    item: str
    count: int = 1


class Place(NamedTuple):
    x: object
    y: object


@dataclasses.dataclass
class Bill:
    total: int

    @property
    def doubled(self) -> int:
        return 2 * self.total


async def waits(value: object) -> bool:
    return False


def is_even(value: Any) -> bool:
    return isinstance(value, int) and value % 2 == 0


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (int, 3, "3"),
        (3, 3, 4),
        (None, None, 0),
        (is_even, 4, 5),
        (("ok", int), ("ok", 3), ("ok", "3")),
        (("ok", int), ("ok", 3), ("ok", 3, 4)),
        (("ok", int), ("ok", 3), ["ok", 3]),
        ([int, is_even], [1, 2], [1, 3]),
        ({"a": int}, {"a": 1}, {"a": 1, "b": 2}),
        ({"a": int}, {"a": 1}, {"a": "1"}),
        (Order("tea"), Order("tea"), Order("rice")),
        (like(Order, count=is_even), Order("tea", 2), Order("tea", 3)),
        (like(object, price=ANYTHING), None, Order("tea")),
        (int | str, "3", b"3"),
        (Place(int, is_even), Place(1, 2), Place(1, 3)),
        (Place(int, is_even), Place(1, 2), (1, 2)),
        (equal_to(int), int, 3),
        (equal_to(is_even), is_even, 4),
        ((ANYTHING, 2), (object(), 2), (object(), 3)),
    ],
    # Without addresses: the names of tests are the same in each process.
    ids=lambda value: re.sub(r" at 0x[0-9a-f]+", "", str(value)),
)
def test_a_pattern_accepts_what_it_says(
    pattern: object, yes: object, no: object
) -> None:
    accepted = accepts(pattern, yes), accepts(pattern, no)

    # Nothing has a price, so nothing fits that one.
    assert accepted == (yes is not None or pattern is None, False)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (Order, "Order"),
        (like(Order, item=str, count=3), "like(Order, item=str, count=3)"),
        (("ok", int), "('ok', int)"),
        ((int,), "(int,)"),
        ([int, is_even], "[int, is_even(...)]"),
        ({"a": int}, "{'a': int}"),
        (equal_to(int), "equal_to(<class 'int'>)"),
        (ANYTHING, "ANYTHING"),
        ("pong", "'pong'"),
    ],
)
def test_a_pattern_is_shown_as_it_was_written(pattern: object, text: str) -> None:
    assert describe(pattern) == text


T = TypeVar("T")


@attrs.frozen
class Box(Generic[T]):
    inside: T


@pytest.mark.parametrize(
    ("pattern", "value"),
    [(list[int], ["x"]), (Box[int], "x"), (waits, 3)],
)
def test_a_pattern_that_would_accept_too_much_is_refused(
    pattern: object, value: object
) -> None:
    with pytest.raises(TypeError, match=r"pattern .*: "):
        accepts(pattern, value)


@pytest.mark.parametrize("kind", [Order, Bill])
def test_a_field_that_no_instance_has_is_refused(kind: type[object]) -> None:
    with pytest.raises(TypeError, match=rf"like\({kind.__name__}, itme=...\)"):
        like(kind, itme="tea")


def test_an_attribute_may_be_called_anything_and_be_a_property() -> None:
    assert accepts(like(Bill, total=2, doubled=4), Bill(2))
    assert accepts(like(BaseException, kind=3), ValueError()) is False
