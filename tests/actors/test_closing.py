"""The end of an actor: its `close` is bounded, and follows a load that fails."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer.actors import Context, deployment_of, inference_actor
from atomr_infer.errors import EngineError
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_python.actor_plugin import CLOSE_S, PLUGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

CLOSED: list[str] = []
NEVER = threading.Event()


class Handling:
    """Replies with what it is asked."""

    async def handle(self, _: Context, text: str) -> str:
        return text


@inference_actor
class Waits(Handling):
    """Its close never ends, in the loop."""

    async def close(self) -> None:
        await trio.sleep_forever()


@inference_actor
class Blocks(Handling):
    """Its close never ends, in its thread."""

    def close(self) -> None:
        NEVER.wait()


@inference_actor
class HalfLoaded(Handling):
    """Holds something when its load fails."""

    def load(self) -> None:
        raise OSError("no such file")

    def close(self) -> None:
        CLOSED.append("half")


@inference_actor
class FailsTwice(HalfLoaded):
    """Neither loads nor closes."""

    def close(self) -> None:
        raise KeyError("nothing to close")


async def open_and_close(actor: Callable[..., Any]) -> None:
    async with PLUGIN.open_runner(deployment_of(actor, "a"), RunnerContext()):
        pass


@pytest.mark.parametrize("actor", [Waits, Blocks])
async def test_a_close_that_hangs_is_given_up(
    actor: Callable[..., Any], mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    NEVER.clear()
    with trio.move_on_after(60), caplog.at_level(logging.WARNING):
        async with PLUGIN.open_runner(deployment_of(actor, "a"), RunnerContext()):
            # Not before: its thread is at work, which the clock does not know.
            mock_clock.autojump_threshold = 0
    NEVER.set()

    assert trio.current_time() == CLOSE_S
    assert caplog.messages == [
        f"{__name__}:{actor.__name__}: its close has not ended in 10 s, and is given up"
    ]


async def test_what_fails_to_load_is_closed() -> None:
    CLOSED.clear()
    with pytest.raises(EngineError, match="OSError: no such file"):
        await open_and_close(HalfLoaded)

    assert CLOSED == ["half"]


async def test_a_close_that_fails_hides_no_load_that_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(EngineError, match="OSError: no such file"):
        await open_and_close(FailsTwice)

    assert "its close fails" in caplog.text
    assert "KeyError: 'nothing to close'" in caplog.text
