"""What vLLM counts of itself, as figures.

It keeps its metrics for Prometheus, in this process, and has a function that reads
them.  Those of several engine cores (data parallelism) are told together.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from atomr_infer.model import figures as named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from atomr_infer.model.figures import Figure


class Metric(Protocol):
    """What is used of vLLM's ``Counter`` and ``Gauge``."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def value(self) -> float:
        """How it stands."""
        ...


_TOLD: Mapping[str, Callable[[float], Figure]] = {
    "vllm:num_requests_running": named.running,
    "vllm:num_requests_waiting": named.waiting,
    "vllm:kv_cache_usage_perc": named.cache_used,
    "vllm:num_preemptions": named.preemptions,
    "vllm:prefix_cache_queries": named.prefix_asked,
    "vllm:prefix_cache_hits": named.prefix_hit,
    "vllm:prompt_tokens": named.read_tokens,
    "vllm:generation_tokens": named.made_tokens,
}
_SHARES = {"vllm:kv_cache_usage_perc"}
"""What is a share of each core, so that the mean is told, and else the sum."""


def figures_of(metrics: Iterable[Metric]) -> tuple[Figure, ...]:
    """Return those of vLLM's metrics that other engines have, too."""
    found: dict[str, list[float]] = defaultdict(list)
    for metric in metrics:
        if metric.name in _TOLD:
            found[metric.name].append(metric.value)
    return tuple(
        _TOLD[name](sum(values) / (len(values) if name in _SHARES else 1))
        for name, values in found.items()
    )
