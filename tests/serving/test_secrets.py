"""What a crash report shows, and what it must not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from atomr.errors import ServerDownError
from atomr.otp import call
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.names import MANAGER

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_a_crash_of_the_manager_does_not_print_the_environment(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with open_serving(environ={"SOME_KEY": "sk-secret"}):
            with pytest.raises(ServerDownError):
                await call(MANAGER, "no such request")
    assert "deployment_manager" in caplog.text
    assert "sk-secret" not in caplog.text
