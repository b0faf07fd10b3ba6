"""Signs of life and causes of death."""

from __future__ import annotations

import signal

import pytest

from atomr_infer.bridge.vitals import Silence, describe_exit


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


def test_silence_counts_turns_in_a_row_only() -> None:
    watch = Silence(limit=3)
    for heard, hung in [
        (False, False),
        (False, False),
        (True, False),
        (False, False),
        (False, False),
        (False, True),
    ]:
        watch = watch.after_turn(heard=heard)
        assert watch.hung is hung
