"""What an engine is doing that does not serve yet, for who waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.errors import InferenceError

if TYPE_CHECKING:
    from atomr_infer.runtimes.contract import Progress
    from atomr_infer.serving.shared import Serving

_PERCENT = 100


def starting(serving: Serving, model: str) -> str:
    """Return what a request for a model waits for, in a few words.

    Returns:
        "": one of its engines serves, or it is on another node.
    """
    try:
        name = serving.table.resolve(model).deployment
    except InferenceError:
        return ""  # who asks is told so
    replicas = serving.replicas(name)
    if not replicas or any(replica.ready for replica in replicas):
        return ""
    first = replicas[0]
    now = f"{name} is {first.phase.value}"
    return now if first.progress is None else f"{now}: {_shown(first.progress)}"


def _shown(progress: Progress) -> str:
    if not progress.total or progress.done is None:
        return progress.phase
    return f"{progress.phase}, {progress.done * _PERCENT // progress.total} %"
