"""Runners in child interpreters, so that a crash costs one child.

:func:`open_bridged_runner` is the way in.  The child's side is
``child``; it is not imported here, for it is run as a program.
"""

from atomr_infer.bridge.opening import open_bridged_runner
from atomr_infer.bridge.parent.limits import DEFAULT_LIMITS, BridgeLimits
from atomr_infer.bridge.parent.runner import BridgedRunner

__all__ = ["DEFAULT_LIMITS", "BridgeLimits", "BridgedRunner", "open_bridged_runner"]
