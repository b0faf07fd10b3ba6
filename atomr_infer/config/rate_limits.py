"""The table ``[deployment.rate_limits]`` to :class:`RateLimits`.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.rate_limits import LimitMode, OnLimit, RateLimits

if TYPE_CHECKING:
    from atomr_infer.config.reader import TableReader

# What people write who know other tools.
_OTHER_WORDS = {
    "rpm": "did you mean 'requests_per_minute'?",
    "tpm": "did you mean 'tokens_per_minute'?",
    "itpm": "did you mean 'input_tokens_per_minute'?",
    "otpm": "did you mean 'output_tokens_per_minute'?",
    "requests_per_second": "write requests_per_minute, and window_s = 1",
    "max_parallel_requests": "did you mean 'max_concurrent'?",
    "max_concurrency": "did you mean 'max_concurrent'?",
    "concurrency": "did you mean 'max_concurrent'?",
    "window": "did you mean 'window_s'?",
    "dry_run": "did you mean 'shadow'?",
}


def read_rate_limits(table: TableReader) -> RateLimits:
    """Read the limits of a deployment, or of a virtual key.

    Raises:
        ConfigError: there are mistakes in it.
    """
    readers = {
        "shadow": lambda: table.flag("shadow"),
        **table.members(mode=LimitMode, on_exceeded=OnLimit),
    }
    return table.read(RateLimits, readers, also=_OTHER_WORDS)
