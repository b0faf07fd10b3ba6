"""What is in the log of a child's last words."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from atomr_infer.bridge.system.capture import OutputCapture
from atomr_infer.bridge.system.output import BURST_LINES, TAIL_LINES

if TYPE_CHECKING:
    import pytest

LOGGER = "atomr_infer.engine.tiny"
FLOOD = b"flood\n" * BURST_LINES


async def logged_of(written: bytes, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged of a child that wrote something and failed."""
    ours, its = os.pipe()
    capture = OutputCapture(ours, "tiny", is_own=False)
    assert os.write(its, written) == len(written)
    os.close(its)
    await capture.run()
    capture.show_last()
    return [record.getMessage() for record in caplog.records]


async def test_the_last_words_behind_a_flood_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    logged = await logged_of(FLOOD + b"out of memory\nbye\n", caplog)
    left_out = "... 2 lines left out: too many at once"
    assert logged[-3:] == [left_out, "out of memory", "bye"]
    assert len(logged) == BURST_LINES + 3


async def test_last_words_that_were_logged_are_not_logged_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    assert await logged_of(b"out of memory\nbye\n", caplog) == ["out of memory", "bye"]


async def test_the_last_words_are_logged_where_nothing_else_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, LOGGER)
    logged = await logged_of(FLOOD + b"bye\n", caplog)
    assert logged == ["flood"] * (TAIL_LINES - 1) + ["bye"]
