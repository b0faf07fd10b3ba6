"""Which steps of vLLM's core count as progress."""

from __future__ import annotations

import attrs

from atomr_infer_vllm.steps import Steps


@attrs.frozen
class Stats:
    """How its scheduler stands."""

    kv_cache_usage: float


def test_a_step_that_turns_round_for_nothing_is_none() -> None:
    steps = Steps()
    for stats, has_outputs, made in [
        (Stats(0.0), False, 0),  # nobody had room
        (Stats(0.2), False, 1),  # a piece of a prompt was read
        (Stats(0.4), False, 2),
        (Stats(0.4), False, 2),
        (Stats(0.4), True, 3),  # a token was made, in a block that was there
        (None, False, 3),
        (None, True, 4),
        (Stats(0.4), False, 4),
        (Stats(0.0), False, 5),  # it was dropped
    ]:
        steps.take(stats, has_outputs=has_outputs)
        assert steps.made == made
