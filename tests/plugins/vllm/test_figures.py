"""Which of vLLM's metrics are told, and as what; nothing here needs vLLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs
import trio

from atomr_infer.model.figures import Figure, cache_used, preemptions, running
from atomr_infer_vllm.figures import figures_of
from atomr_infer_vllm.runner import Engine, Watched

if TYPE_CHECKING:
    from atomr_infer_vllm.loop import LoopThread


@attrs.frozen
class Gauge:
    name: str
    value: float


TOLD = [
    Gauge("vllm:num_requests_running", 3),
    Gauge("vllm:num_requests_running", 4),
    Gauge("vllm:kv_cache_usage_perc", 0.5),
    Gauge("vllm:kv_cache_usage_perc", 0.75),
    Gauge("vllm:num_preemptions", 2),
    Gauge("vllm:cache_config_info", 1),
]
FIGURES = (running(7), cache_used(0.625), preemptions(2))


def test_cores_are_told_together_and_shares_are_a_mean() -> None:
    assert figures_of(TOLD) == FIGURES
    assert figures_of([]) == ()


async def test_its_locks_are_waited_for_beside_the_loop() -> None:
    main = trio.lowlevel.current_trio_token()

    def metrics() -> list[Gauge]:
        # Only another thread can ask this one.
        trio.from_thread.run_sync(int, trio_token=main)
        return TOLD

    life = Watched(cast("LoopThread", None), cast("Engine", None), metrics)
    found: tuple[Figure, ...] = await life.figures()
    assert found == FIGURES
