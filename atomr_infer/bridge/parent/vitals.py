"""Signs of life, as plain decisions.

Pure.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Silence:
    """How long a child has said nothing, counted in turns of the watch.

    A turn is one ``interval_s`` in which *we* were awake to listen.  Wall time
    would be wrong: after the parent itself was stopped (Ctrl-Z, a suspended
    laptop, a long blocking call), a child that is well would look dead.

    Attributes:
        limit: silent turns in a row that mean "hung", at least 1.
        turns: silent turns in a row so far.

    >>> watch = Silence(limit=2).after_turn(heard=False)
    >>> watch.hung, watch.after_turn(heard=False).hung
    (False, True)
    >>> watch.after_turn(heard=True).turns
    0
    """

    limit: int
    turns: int = 0

    @property
    def hung(self) -> bool:
        """True when the child has been silent for too long."""
        return self.turns >= self.limit

    def after_turn(self, *, heard: bool) -> Silence:
        """Return the count after one more turn."""
        return attrs.evolve(self, turns=0 if heard else self.turns + 1)


@attrs.frozen
class Standstill:
    """For how long an engine that is asked for something has made nothing, in turns.

    Turns in which nobody waits for it change nothing: requests that give up one after
    the other, each of them soon, wait for the same engine.

    Attributes:
        turns: turns since it made something, but those in which nobody waited for it.
        steps: the steps that it has made; None: it does not tell.

    >>> stands = Standstill().after_turn(asked=True, told=False, steps=None)
    >>> stands = stands.after_turn(asked=False, told=False, steps=None)
    >>> stands.after_turn(asked=True, told=False, steps=None).turns
    2
    >>> stands.after_turn(asked=True, told=True, steps=None).turns
    0
    """

    turns: int = 0
    steps: int | None = None

    def after_turn(self, *, asked: bool, told: bool, steps: int | None) -> Standstill:
        """Return the count after one more turn.

        Args:
            asked: whether somebody waits for what it makes.
            told: whether a piece of an answer came.
            steps: the steps that it has made, as it said last; None: it does not tell.
        """
        if told or steps != self.steps:
            return Standstill(steps=steps)
        return attrs.evolve(self, turns=self.turns + asked)
