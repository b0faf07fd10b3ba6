"""Bounds on a child's behaviour.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.bridge.frames import MAX_FRAME_BYTES
from atomr_infer.model.validation import at_least, positive

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

_QUESTIONS = 3
"""How often a child is asked before its silence is too long."""


@attrs.frozen(kw_only=True)
class BridgeLimits:
    """How long a child may take, and how much it may send.

    Attributes:
        heartbeat_s: seconds between two questions whether it lives.
        silent_s: seconds of silence after which it is hung.  An engine that
            holds its interpreter for longer than this in normal work needs more.
        cancel_s: seconds in which a generation must stop when it is told to.
        close_s: seconds for an orderly end, before SIGTERM.
        terminate_s: seconds between SIGTERM and SIGKILL.
        window: unread chunks per stream, at least 1.
        max_frame_bytes: longest message that the parent sends or takes.
    """

    heartbeat_s: float = attrs.field(default=1.0, validator=positive)
    silent_s: float = attrs.field(default=15.0, validator=positive)
    cancel_s: float = attrs.field(default=10.0, validator=positive)
    close_s: float = attrs.field(default=10.0, validator=positive)
    terminate_s: float = attrs.field(default=2.0, validator=positive)
    window: int = attrs.field(default=64, validator=at_least(1))
    max_frame_bytes: int = attrs.field(default=MAX_FRAME_BYTES, validator=at_least(1))


DEFAULT_LIMITS = BridgeLimits()


def limits_of(deployment: Deployment) -> BridgeLimits:
    """Return the bounds on a deployment's child: the usual ones, and its own silence.

    >>> from atomr_infer.model.deployment import Deployment, Timeouts
    >>> limits_of(Deployment(name="m", runtime="ort")) == DEFAULT_LIMITS
    True
    >>> quick = Deployment(name="m", runtime="ort", timeouts=Timeouts(silent_s=1.5))
    >>> limits_of(quick).silent_s, limits_of(quick).heartbeat_s
    (1.5, 0.5)
    """
    silent_s = deployment.timeouts.silent_s
    heartbeat_s = min(DEFAULT_LIMITS.heartbeat_s, silent_s / _QUESTIONS)
    return attrs.evolve(DEFAULT_LIMITS, silent_s=silent_s, heartbeat_s=heartbeat_s)
