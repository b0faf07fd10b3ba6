"""The table ``[deployment.hot_swap]`` to a :class:`SwapPlan`.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.config.reader import type_name
from atomr_infer.model.swap_plan import SwapPlan

if TYPE_CHECKING:
    from atomr_infer.config.reader import TableReader

# What people write who know other tools.
_OTHER_WORDS = {
    "weight": "did you mean 'steps'?",
    "weights": "did you mean 'steps'?",
    "canary": "did you mean 'steps'?",
    "timeout_s": "did you mean 'patience_s', or 'probe_timeout_s'?",
    "error_rate": "did you mean 'max_error_rate'?",
}


def read_hot_swap(table: TableReader) -> SwapPlan:
    """Read how carefully another deployment takes over.

    Raises:
        ConfigError: a key is unknown, or a value is not allowed.
    """
    return table.read(SwapPlan, {"steps": lambda: _steps(table)}, also=_OTHER_WORDS)


def _steps(table: TableReader) -> object:
    steps = table.content["steps"]
    if not isinstance(steps, list | tuple):
        raise table.fail("steps", f"steps is {type_name(steps)}, not an array")
    return steps
