"""Processes of a test, which end with it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator


@contextmanager
def or_killed(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Kill it where the block fails.

    ``Popen`` waits for it at the end of its own block, and what should have ended it
    was not reached: the test would hang, and say nothing of what failed.
    """
    try:
        yield
    except BaseException:
        process.kill()
        raise
