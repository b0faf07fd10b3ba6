"""The GPUs that this process may use, without asking a driver.

The kernel is asked: a file for each GPU, and the variable that hides some of them from
this process.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"

DEVICES = Path("/dev")
"""Where the kernel shows them."""

_ENDS = ("", "-1", "NoDevFiles")


def gpus_there(devices: Path = DEVICES) -> int:
    """Return how many GPUs this machine has."""
    return sum(1 for _ in devices.glob("nvidia[0-9]*"))


def gpus_seen(environ: Mapping[str, str], devices: Path = DEVICES) -> int:
    """Return how many of them this process sees.

    Args:
        environ: where the variable is that hides GPUs.
        devices: where the kernel shows them.
    """
    there, visible = gpus_there(devices), environ.get(VISIBLE)
    if visible is None:
        return there
    # What is behind one that does not exist is hidden, too.
    names = visible.split(",")
    ends = [n for n, name in enumerate(names) if name.strip() in _ENDS]
    return min(there, *ends, len(names))
