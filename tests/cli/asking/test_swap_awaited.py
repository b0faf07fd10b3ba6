"""``atomr-infer swap`` waits for its own swap, whichever worker answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomr_infer.cli.asking import operators, swap

if TYPE_CHECKING:
    import pytest


def told(swap_id: str, phase: str) -> dict[str, Any]:
    return {"deployment": "m", "id": swap_id, "phase": phase, "share": 0.0}


def test_a_worker_that_has_the_last_swap_alone_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter(
        [
            [told("old", "rolled back")],
            [],
            [told("new", "loading")],
            [told("old", "rolled back")],
            [told("new", "swapped")],
        ]
    )
    monkeypatch.setattr(operators, "ask", lambda *_: {"swaps": next(answers)})
    monkeypatch.setattr(swap, "_LOOK_EVERY_S", 0.0)
    shown: list[dict[str, Any]] = []
    gateway: Any = None
    ended = swap._awaited(gateway, "m", shown.append, swap_id="new")
    assert ended == told("new", "swapped")
    assert shown == [told("new", "loading"), told("new", "swapped")]
