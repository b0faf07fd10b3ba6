"""Bounds on a child's behaviour.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.bridge.protocol.frames import MAX_FRAME_BYTES
from atomr_infer.model.validation import at_least, positive

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

GIB = 2**30

_QUESTIONS = 3
"""How often a child is asked before its silence is too long."""

STUCK_S = 90.0
"""An engine that is to make a step, and has not made it by then, is stuck: in seconds.

A step reads one piece of a prompt, of some hundred tokens, or makes a token for each
answer; a slow processor may take half a minute for that.  Those who wait for a first
token give up after ``timeouts.first_token_s``, and are answered by the next engine if
this one is found before that."""


@attrs.frozen(kw_only=True)
class BridgeLimits:
    """How long a child may take, and how much it may send.

    Attributes:
        heartbeat_s: seconds between two questions whether it lives.
        silent_s: seconds of silence after which it is hung.  An engine that
            holds its interpreter for longer than this in normal work needs more.
        stuck_s: seconds in which an engine that writes, and tells its steps, may make
            none while somebody waits for it.
        blind_s: the same for any other: one that does not tell them, and may read a
            long prompt; one of vectors or tensors, whose runs may be long.
        cancel_s: seconds in which a generation must stop when it is told to.
        close_s: seconds for an orderly end, before SIGTERM.
        terminate_s: seconds between SIGTERM and SIGKILL.
        window: unread chunks per stream, at least 1.
        max_frame_bytes: longest message that the parent sends or takes.
        memory_bytes: the most that its processes may have together; None: no bound.
    """

    heartbeat_s: float = attrs.field(default=1.0, validator=positive)
    silent_s: float = attrs.field(default=15.0, validator=positive)
    stuck_s: float = attrs.field(default=STUCK_S, validator=positive)
    blind_s: float = attrs.field(default=210.0, validator=positive)
    cancel_s: float = attrs.field(default=10.0, validator=positive)
    close_s: float = attrs.field(default=10.0, validator=positive)
    terminate_s: float = attrs.field(default=2.0, validator=positive)
    window: int = attrs.field(default=64, validator=at_least(1))
    max_frame_bytes: int = attrs.field(default=MAX_FRAME_BYTES, validator=at_least(1))
    memory_bytes: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(at_least(1))
    )


DEFAULT_LIMITS = BridgeLimits()


def limits_of(deployment: Deployment) -> BridgeLimits:
    """Return the bounds on a deployment's child: the usual ones, and its own silence.

    An engine that tells no steps may be reading a prompt for as long as a request may
    wait for a token; it is stuck when that is over.

    >>> from atomr_infer.model.deployment import Deployment, Timeouts
    >>> usual = limits_of(Deployment(name="m", runtime="ort"))
    >>> usual.silent_s, usual.stuck_s, usual.blind_s
    (15.0, 90.0, 210.0)
    >>> quick = Deployment(name="m", runtime="ort", timeouts=Timeouts(silent_s=1.5))
    >>> limits_of(quick).silent_s, limits_of(quick).heartbeat_s
    (1.5, 0.5)
    >>> patient = Deployment(name="m", runtime="ort", timeouts=Timeouts(idle_s=300.0))
    >>> limits_of(patient).stuck_s, limits_of(patient).blind_s
    (90.0, 390.0)
    >>> exact = Deployment(name="m", runtime="ort", timeouts=Timeouts(stuck_s=20.0))
    >>> limits_of(exact).stuck_s, limits_of(exact).blind_s
    (20.0, 20.0)
    >>> small = Deployment(name="m", runtime="ort", memory_limit_gib=0.5)
    >>> limits_of(small).memory_bytes
    536870912
    """
    limit_gib = deployment.memory_limit_gib
    timeouts = deployment.timeouts
    silent_s, stuck_s = timeouts.silent_s, timeouts.stuck_s
    heartbeat_s = min(DEFAULT_LIMITS.heartbeat_s, silent_s / _QUESTIONS)
    if stuck_s is None:
        longest_s = max(timeouts.first_token_s, timeouts.idle_s)
        stuck_s, blind_s = STUCK_S, STUCK_S + longest_s
    else:
        blind_s = stuck_s
    return attrs.evolve(
        DEFAULT_LIMITS,
        silent_s=silent_s,
        heartbeat_s=heartbeat_s,
        stuck_s=stuck_s,
        blind_s=blind_s,
        memory_bytes=None if limit_gib is None else max(1, round(limit_gib * GIB)),
    )
