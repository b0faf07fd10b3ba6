"""Which steps of vLLM's core count as progress."""

from __future__ import annotations

import attrs

from atomr_infer_vllm.steps import Steps


@attrs.frozen
class Details:
    """What went through the model in a step."""

    num_ctx_tokens: int = 0
    num_generation_tokens: int = 0


@attrs.frozen
class Stats:
    """How its scheduler stands."""

    num_running_reqs: int
    iteration_details: Details | None = None


def test_a_step_that_turns_round_for_nothing_is_none() -> None:
    steps = Steps()
    for stats, made in [
        (Stats(0), 0),  # nobody had room
        # Pieces of prompts were read; no word is said of how full the cache is.
        (Stats(1, Details(num_ctx_tokens=256)), 1),
        (Stats(1, Details(num_ctx_tokens=3)), 2),
        (Stats(1, Details(num_generation_tokens=1)), 3),
        (Stats(2, Details(num_ctx_tokens=7, num_generation_tokens=1)), 4),
        (Stats(0, Details(num_generation_tokens=1)), 5),  # the last token
        # Requests have a place, and no token of theirs was run.
        (Stats(2), 5),
        (Stats(2, Details()), 5),
        (None, 5),
    ]:
        steps.take(stats)
        assert steps.made == made, stats
