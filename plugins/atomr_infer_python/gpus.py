"""Whether this machine has the GPUs that an actor needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.gpus import DEVICES, VISIBLE, gpus_seen, gpus_there

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def check_gpus(
    who: str, needed: int, environ: Mapping[str, str], devices: Path = DEVICES
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
    there, seen = gpus_there(devices), gpus_seen(environ, devices)
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
