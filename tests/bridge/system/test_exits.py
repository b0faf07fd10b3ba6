"""How a process ended, in words."""

from __future__ import annotations

import signal

import pytest

from atomr_infer.bridge.system.exits import describe_exit


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-signal.SIGKILL, "killed by SIGKILL (9)"),
        (-signal.SIGSEGV, "killed by SIGSEGV (11)"),
        (-40, "killed by signal (40)"),
    ],
)
def test_exit_is_described(returncode: int, words: str) -> None:
    assert describe_exit(returncode) == words
