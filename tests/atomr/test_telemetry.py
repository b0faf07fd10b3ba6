"""Telemetry: who is called, and what a handler that fails can do."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from atomr import telemetry
from atomr.core.exits import NORMAL
from atomr.process import Node, spawn, wait_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager


@pytest.fixture
def seen() -> Iterator[list[tuple[object, ...]]]:
    """Collect all events of ``atomr``."""
    events: list[tuple[object, ...]] = []

    def handler(
        event: tuple[str, ...],
        measurements: Mapping[str, float],
        metadata: Mapping[str, object],
    ) -> None:
        events.append((event, dict(measurements), dict(metadata)))

    telemetry.attach("collect", ("atomr",), handler)
    yield events
    telemetry.detach("collect")


def test_a_handler_gets_the_events_under_its_prefix_only(
    seen: list[tuple[object, ...]],
) -> None:
    telemetry.emit(("atomr", "x"), {"n": 1}, {"who": "me"})
    telemetry.emit(("other", "x"))

    assert seen == [(("atomr", "x"), {"n": 1}, {"who": "me"})]


def test_a_handler_that_fails_is_detached_and_the_others_are_called(
    seen: list[tuple[object, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise ValueError("bad handler")

    telemetry.attach("failing", (), failing)
    with caplog.at_level(logging.ERROR):
        telemetry.emit(("atomr", "x"))
        telemetry.emit(("atomr", "y"))

    assert [event for event, *_ in seen] == [("atomr", "x"), ("atomr", "y")]
    assert [record.getMessage() for record in caplog.records] == [
        "telemetry handler 'failing' failed on ('atomr', 'x') and was detached"
    ]
    assert telemetry.detach("failing") is False


def test_a_handler_id_cannot_be_attached_twice(seen: list[object]) -> None:
    with pytest.raises(ValueError, match="attached already"):
        telemetry.attach("collect", (), lambda *_: None)
    assert seen == []


async def test_the_life_of_a_process_is_two_events(
    seen: list[tuple[object, ...]],
    clean_node: Callable[[], AbstractAsyncContextManager[Node]],
    autojump_clock: object,
) -> None:
    async def work() -> None:
        return

    async with clean_node():
        pid = spawn(work)
        await wait_exit(pid)

    assert seen == [
        (("atomr", "process", "start"), {}, {"pid": pid}),
        (
            ("atomr", "process", "stop"),
            {"lifetime_s": 0.0},
            {"pid": pid, "reason": NORMAL},
        ),
    ]
