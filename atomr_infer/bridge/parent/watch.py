"""Whether a child that serves is well, turn by turn of the parent's watch.

Its own loop answers each question; its engine is seen by what comes of it: pieces of
answers, and its steps, which it tells with each answer to a question.  An engine may
well stand still while nobody waits for it, and while a reader does not take what is
there: it may hold what others wait for.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from atomr_infer.bridge.parent import reasons
from atomr_infer.bridge.parent.limits import limits_of
from atomr_infer.bridge.parent.vitals import Silence, Standstill
from atomr_infer.model.capabilities import Feature

if TYPE_CHECKING:
    from collections.abc import Collection

    from atomr_infer.bridge.parent.limits import BridgeLimits
    from atomr_infer.errors import EngineHungError
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.deployment import Deployment

_WRITES = frozenset({Feature.CHAT, Feature.COMPLETIONS})


class Asked(Protocol):
    """What the parent has asked, and has no end of yet."""

    @property
    def computes(self) -> bool:
        """Whether the engine runs for it."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether more of the answer may come; False: its reader does not read."""
        ...


class Watch:
    """What is known of a child's life.

    Args:
        name: the deployment's.
        limits: how patient to be.

    Attributes:
        told: whether a piece of an answer, or the end of one that nobody had stopped,
            came in this turn; to be set.
        steps: what the child said last of its engine's steps; to be set.
    """

    def __init__(self, name: str, limits: BridgeLimits) -> None:
        self.told = False
        self.steps: int | None = None
        self._name = name
        self._limits = limits
        self._silence = Silence(max(1, round(limits.silent_s / limits.heartbeat_s)))
        self._stands = Standstill()
        self._has_small_steps = False

    def serves(self, capabilities: Capabilities) -> None:
        """Take what the engine does: one that writes makes steps of a token or so.

        One of vectors or of tensors runs over all that there is, for as long as that
        takes; the end of a run is a sign, and its absence says little.
        """
        self._has_small_steps = not _WRITES.isdisjoint(capabilities.features)

    def reread(self, deployment: Deployment) -> None:
        """Have an engine make nothing for as long as a deployment says from now on."""
        now = limits_of(deployment)
        self._limits = attrs.evolve(
            self._limits, stuck_s=now.stuck_s, blind_s=now.blind_s
        )

    def after_turn(
        self, *, heard: bool, asked: Collection[Asked]
    ) -> EngineHungError | None:
        """Return why the child is to be killed after one more turn; None: it is well.

        Args:
            heard: whether anything came of it.
            asked: all that it has not ended.
        """
        self._silence = self._silence.after_turn(heard=heard)
        if self._silence.hung:
            return reasons.silent(self._name, self._limits.silent_s)
        self._stands = self._stands.after_turn(
            asked=any(each.computes for each in asked)
            and all(each.has_room for each in asked),
            told=self.told,
            steps=self.steps,
        )
        self.told = False
        tells = self.steps is not None
        closely = tells and self._has_small_steps
        bound_s = self._limits.stuck_s if closely else self._limits.blind_s
        # Who asks in mid-turn has waited for a part of the first one only.
        if self._stands.turns - 1 >= bound_s / self._limits.heartbeat_s:
            return reasons.stuck(self._name, bound_s, tells_steps=tells)
        return None
