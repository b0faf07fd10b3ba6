"""Signs of life."""

from __future__ import annotations

from atomr_infer.bridge.parent.vitals import Silence


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
