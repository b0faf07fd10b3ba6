"""An operator's functions, of every kind that can be called."""

from __future__ import annotations

import threading
from functools import partial, wraps
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.errors import ConfigError
from atomr_infer.pipeline.asking.functions import call_function, find_function

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HERE = threading.get_ident


def plain(word: str) -> tuple[str, int]:
    return word, HERE()


async def waits(word: str) -> tuple[str, int]:
    await trio.lowlevel.checkpoint()
    return word, HERE()


def wrapped(function: Callable[[str], Awaitable[object]]) -> Callable[[str], object]:
    @wraps(function)
    def call(word: str) -> object:
        return function(word)

    return call


def threads() -> trio.CapacityLimiter:
    return trio.CapacityLimiter(1)


class Plain:
    def __call__(self, word: str) -> tuple[str, int]:
        return plain(word)


class Waits:
    async def __call__(self, word: str) -> tuple[str, int]:
        return await waits(word)

    async def method(self, word: str) -> tuple[str, int]:
        return await waits(word)


@pytest.mark.parametrize(
    "function",
    [waits, partial(waits), Waits(), Waits().method, wrapped(waits)],
    ids=["function", "partial", "object", "method", "wrapped"],
)
async def test_what_is_async_is_awaited_in_the_loop(
    function: Callable[..., object],
) -> None:
    assert await call_function(function, "law", limiter=threads()) == ("law", HERE())


@pytest.mark.parametrize(
    "function", [plain, partial(plain), Plain(), Plain().__call__, Plain.__call__]
)
async def test_what_is_plain_thinks_in_a_thread(
    function: Callable[..., object],
) -> None:
    first = (None,) if function is Plain.__call__ else ()
    said = await call_function(function, *first, "law", limiter=threads())
    assert isinstance(said, tuple)
    assert said[0] == "law"
    assert said[1] != HERE()


async def test_what_it_raises_comes_as_it_is() -> None:
    def fails() -> None:
        raise KeyError("law")

    with pytest.raises(KeyError, match="law"):
        await call_function(fails, limiter=threads())


async def test_nobody_waits_for_a_plain_one_after_a_cancellation() -> None:
    begun, goes_on = threading.Event(), threading.Event()

    ended: list[bool] = []

    def hangs() -> None:
        begun.set()
        ended.append(goes_on.wait(20))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(call_function, hangs, limiter=threads()))
        await trio.to_thread.run_sync(begun.wait, 60)
        nursery.cancel_scope.cancel()
    assert not ended
    goes_on.set()


async def test_those_that_hang_keep_no_thread_that_others_need() -> None:
    all_threads = int(trio.to_thread.current_default_thread_limiter().total_tokens)
    hanging, own = threading.Event(), trio.CapacityLimiter(all_threads)
    begun = threading.Semaphore(0)

    def hangs() -> None:
        begun.release()
        hanging.wait(60)

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(all_threads):
                nursery.start_soon(partial(call_function, hangs, limiter=own))
            for _ in range(all_threads):
                with trio.fail_after(30):
                    assert await trio.to_thread.run_sync(begun.acquire)
            nursery.cancel_scope.cancel()
    finally:
        hanging.set()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("python:no_such_module:f", "ModuleNotFoundError"),
        ("python:math:no_such", "AttributeError"),
        ("python:math:pi", "is 3.14.*, and no function"),
    ],
)
def test_what_cannot_be_found_is_said_by_its_option(name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"gate '{name}'.*{problem}"):
        find_function(name, what="gate")


def test_it_is_found_inside_of_a_class() -> None:
    assert find_function("python:fractions:Fraction.from_float", what="gate")(0.5)
