"""Exit reasons and the table of exit signals."""

from __future__ import annotations

import pytest

from atomr.core.exits import (
    KILL,
    KILLED,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    ExitReason,
    Shutdown,
    is_abnormal,
    is_crash,
    is_normal,
    is_shutdown,
    unwrap,
)
from atomr.core.links import SignalEffect, exit_reason, signal_effect

CRASH = ValueError("x")
IGNORE, MESSAGE, EXIT = SignalEffect.IGNORE, SignalEffect.MESSAGE, SignalEffect.EXIT


@pytest.mark.parametrize(
    ("reason", "normal", "shutdown", "abnormal", "crash"),
    [
        (NORMAL, True, False, False, False),
        (SHUTDOWN, False, True, False, False),
        (Shutdown("why"), False, True, False, False),
        (KILLED, False, False, True, False),
        (NOPROC, False, False, True, False),
        (CRASH, False, False, True, True),
    ],
)
def test_each_reason_has_its_class(
    reason: ExitReason, normal: bool, shutdown: bool, abnormal: bool, crash: bool
) -> None:
    assert (
        is_normal(reason),
        is_shutdown(reason),
        is_abnormal(reason),
        is_crash(reason),
    ) == (normal, shutdown, abnormal, crash)


def test_a_group_with_one_leaf_is_that_leaf() -> None:
    assert unwrap(ExceptionGroup("", [ExceptionGroup("", [CRASH])])) is CRASH


def test_a_group_with_two_leaves_is_itself() -> None:
    group = ExceptionGroup("", [CRASH, KeyError("y")])

    assert unwrap(group) is group


@pytest.mark.parametrize(
    ("reason", "not_trapping", "to_self", "trapping"),
    [
        (NORMAL, IGNORE, EXIT, MESSAGE),
        (SHUTDOWN, EXIT, EXIT, MESSAGE),
        (Shutdown(1), EXIT, EXIT, MESSAGE),
        (KILLED, EXIT, EXIT, MESSAGE),
        (NOPROC, EXIT, EXIT, MESSAGE),
        (CRASH, EXIT, EXIT, MESSAGE),
        (KILL, EXIT, EXIT, EXIT),
    ],
)
def test_the_exit_signal_table(
    reason: ExitReason,
    not_trapping: SignalEffect,
    to_self: SignalEffect,
    trapping: SignalEffect,
) -> None:
    assert (
        signal_effect(reason, trapping=False),
        signal_effect(reason, trapping=False, to_self=True),
        signal_effect(reason, trapping=True),
    ) == (not_trapping, to_self, trapping)


def test_kill_ends_a_process_with_killed_and_any_other_signal_with_itself() -> None:
    assert (exit_reason(KILL), exit_reason(CRASH)) == (KILLED, CRASH)
