"""Whether this machine has the GPUs that an actor needs.

The kernel is asked, not the driver: a file for each GPU, and the variable that hides
some of them from this process.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from atomr_infer.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"

_DEVICES = Path("/dev")
_ENDS = ("", "-1", "NoDevFiles")


def check_gpus(
    who: str, needed: int, environ: Mapping[str, str], devices: Path = _DEVICES
) -> None:
    """Refuse to start what needs more GPUs than there are.

    Args:
        who: what errors call it.
        needed: how many it needs.
        environ: where the variable is that hides GPUs.
        devices: where the kernel shows them.

    Raises:
        EngineStartError: there are fewer; it says what helps.
    """
    there = sum(1 for _ in devices.glob("nvidia[0-9]*"))
    seen = min(there, _named(environ.get(VISIBLE)))
    if seen >= needed:
        return
    if there >= needed:
        helps = f"set {VISIBLE}, which hides the others, to more of them, or unset it"
    elif there:
        helps = f"say devices={there} where it is decorated, or run it on a larger node"
    else:
        helps = (
            "run it on a node with an NVIDIA GPU and its driver (in a container: start "
            "it with the GPUs), or say devices=0 where it is decorated"
        )
    plural = "" if needed == 1 else "s"
    raise EngineStartError(
        f"{who} needs {needed} GPU{plural}, and this process sees {seen}; {helps}"
    )


def _named(visible: str | None) -> float:
    """Return how many GPUs the variable lets through."""
    if visible is None:
        return float("inf")
    # What is behind one that does not exist is hidden, too.
    names = visible.split(",")
    ends = [n for n, name in enumerate(names) if name.strip() in _ENDS]
    return min(ends, default=len(names))
