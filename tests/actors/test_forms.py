"""Values as text and back, and types that are found or refused."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.actors import Request
from atomr_infer.actors.forms import TEXT, Forms, forms_of
from atomr_infer.errors import (
    ConfigError,
    InternalError,
    InvalidRequestError,
    UpstreamProtocolError,
)
from tests.actors.own import Plan, Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from nowhere import Missing  # type: ignore[import-not-found] # for type checkers


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_is_itself(text: str) -> None:
    assert TEXT.told(TEXT.asked(text), "m") == TEXT.given(text, "m") == text


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 2**63 - 1))
def test_a_value_comes_back_as_it_was(text: str, times: int) -> None:
    forms: Forms[Any, Any] = Forms(Task, Task)
    task = Task(text, times)

    assert forms.told(forms.asked(task), "m") == task


def test_a_text_in_a_union_is_json_too() -> None:
    forms: Forms[Any, Any] = Forms(str | None, str | None)

    assert forms.asked("a") == '"a"'
    assert forms.told("null", "m") is None


async def pieces(ctx: Any, request: Request) -> AsyncIterator[str]:
    yield request.text


def in_a_thread(request: list[int]) -> Iterator[str]:
    yield from map(str, request)


async def bare(ctx, request):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    return request


async def half(ctx: Missing, request: Task) -> Plan | None:
    return None


@pytest.mark.parametrize(
    ("function", "place", "forms"),
    [
        (pieces, 1, Forms(Request, str)),
        (in_a_thread, 0, Forms(list[int], str)),
        (bare, 1, TEXT),
        (half, 1, Forms(Task, Plan | None)),
    ],
)
def test_types_are_those_of_the_annotations(
    function: Callable[..., object], place: int, forms: Forms[Any, Any]
) -> None:
    found: Forms[Any, Any] = forms_of(function, place=place, who="m")

    assert found == forms


async def missing(ctx: Any, request: Missing) -> str:
    return ""


async def too_little(ctx: Any) -> str:
    return ""


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (missing, "name 'Missing' is not defined; import what the request"),
        (too_little, "takes too little; it is given a request"),
    ],
)
def test_types_that_cannot_be_known_are_refused(
    function: Callable[..., object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        forms_of(function, place=1, who="m")


def test_types_that_no_json_has_are_refused() -> None:
    Forms(Task, list[datetime]).check("m")
    with pytest.raises(ConfigError, match=r"m: no JSON has .*Plan"):
        Forms(str, Task | Plan).check("m")


def test_values_of_another_type_are_refused_by_whose_fault_it_is() -> None:
    forms: Forms[Any, Any] = Forms(Task, str)
    with pytest.raises(InvalidRequestError, match="no JSON has the request"):
        forms.asked(object())
    with pytest.raises(InternalError, match="m returns int, and says that it returns"):
        forms.given(5, "m")
    with pytest.raises(InternalError, match="m: no JSON has its reply"):
        Forms(str, list).given([object()], "m")
    with pytest.raises(UpstreamProtocolError, match="does not reply with JSON of int"):
        Forms(str, int).told("five", "m")


def test_nesting_without_end_is_refused() -> None:
    forms: Forms[Any, Any] = Forms(list, list)
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(InvalidRequestError):
        forms.asked(deep)
    with pytest.raises(UpstreamProtocolError):
        forms.told("[" * 100_000, "m")
