"""What a relay's interpreter must have."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from atomr_infer.bridge.system.interpreter import check_interpreter

if TYPE_CHECKING:
    from atomr_infer.model.ray import RayHost

OLDEST_RAY = "ray>=2.60"


class _Relay:
    """Asked by name in the interpreter itself, as a runtime's plugin is."""

    def missing(self) -> tuple[str, ...]:
        """The packages that are not there."""
        return () if find_spec("ray") else (OLDEST_RAY,)


RELAY = _Relay()


async def relay_interpreter(ray: RayHost) -> str:
    """Return the interpreter of a deployment's relay.

    Raises:
        EngineStartError: it cannot be one; says why, and what to run.
    """
    python = ray.interpreter or sys.executable
    await check_interpreter(python, f"{__name__}:RELAY", "ray")
    return python
