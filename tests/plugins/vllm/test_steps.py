"""Which steps of vLLM's core count as progress."""

from __future__ import annotations

import attrs

from atomr_infer_vllm.steps import Steps


@attrs.frozen
class Stats:
    """How its scheduler stands."""

    num_running_reqs: int


def test_a_step_that_turns_round_for_nothing_is_none() -> None:
    steps = Steps()
    for stats, has_outputs, made in [
        (Stats(0), False, 0),  # nobody had room
        # Pieces of prompts were read; no word is said of how full the cache is.
        (Stats(1), False, 1),
        (Stats(1), False, 2),
        (Stats(1), True, 3),
        (Stats(0), True, 4),  # the last token
        (Stats(0), False, 4),
        (None, False, 4),
        (None, True, 5),
    ]:
        steps.take(stats, has_outputs=has_outputs)
        assert steps.made == made
