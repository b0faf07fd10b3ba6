"""The table ``[deployment.rate_limits]`` to :class:`RateLimits`.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.config.reader import type_name
from atomr_infer.model.rate_limits import LimitMode, OnLimit, RateLimits

if TYPE_CHECKING:
    from atomr_infer.config.reader import TableReader

_KEYS = tuple(field.name for field in attrs.fields(RateLimits))
_MEMBERS = {"mode": LimitMode, "on_exceeded": OnLimit}

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
        ConfigError: at the first mistake.
    """
    table.check_keys(_KEYS, also=_OTHER_WORDS)
    shadow = table.content.get("shadow", False)
    if not isinstance(shadow, bool):
        problem = f"shadow is {type_name(shadow)}, not true or false"
        raise table.fail("shadow", problem)
    converted = {
        key: table.member(key, kind)
        for key, kind in _MEMBERS.items()
        if key in table.content
    }
    return table.read(RateLimits, **converted)
