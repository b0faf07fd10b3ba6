"""The permits of one replica, which its engine core and requests share.

The engine core keeps who waits; who finds a place at once takes it here, where
it is, as one reads an ETS table: a message would cost more than the permit.
Nothing here waits, so no two requests see each other half-way.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from atomr.refs import Ref
from atomr_infer.policy.limits.concurrency import AdaptiveLimit
from atomr_infer.policy.tenants.admission import Admission, AdmissionQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.serving.replicas.messages import ContextUp
    from atomr_infer.serving.replicas.replica import ReplicaState


class Ended(Enum):
    """How a generation ended, for the limit of what runs at once."""

    SUCCEEDED = "succeeded"
    RATE_LIMITED = "rate limited"
    OTHERWISE = "otherwise"


class Permit:
    """The right to run one generation now; give it back.

    Attributes:
        ref: what it is known by.
        engine: what it runs on.
        generation: of the limit, when it was given.
        tokens: about how many its request has, where somebody compares them.
    """

    __slots__ = ("_permits", "engine", "generation", "ref", "tokens")

    def __init__(
        self, permits: Permits, ref: Ref, *, engine: ContextUp, tokens: int
    ) -> None:
        self._permits = permits
        self.ref = ref
        self.engine = engine
        self.tokens = tokens
        self.generation = permits.limit.generation

    @property
    def replica(self) -> ReplicaState:
        """Where it is for."""
        return self._permits.state

    def give_back(self, ended: Ended) -> None:
        """Give it back, and let those run who have a place now."""
        self._permits.give_back(self, ended)


class Permits:
    """Who runs on a replica, how many may, and on what.

    Attributes:
        queue: who runs and who waits.
        limit: how many run at once, as far as the upstream lets us.
        engine: the open runner; None: there is none now.
        state: what shows the load to others; the core sets it.
        freed: gives the core a permit for which somebody waits; the core sets it.
        left: tells the core of each permit that is back, when it waits for the last
            one; None: it does not.
    """

    state: ReplicaState
    freed: Callable[[Permit, Ended], None]

    def __init__(self, queue: AdmissionQueue[Ref]) -> None:
        self.queue = queue
        self.limit = AdaptiveLimit(1)
        self.engine: ContextUp | None = None
        self.left: Callable[[], None] | None = None

    def take(self, tokens: int) -> Permit | None:
        """Take a permit that is free; None: there is none for who does not wait.

        Args:
            tokens: about how many its request has; 0: nobody compares them.
        """
        engine = self.engine
        if engine is None:
            return None
        ref = Ref()
        if self.queue.ask(ref, may_wait=False) is not Admission.GRANTED:
            return None
        engine.life.enter()
        self.state.tokens += tokens
        return Permit(self, ref, engine=engine, tokens=tokens)

    def give_back(self, permit: Permit, ended: Ended) -> None:
        """Give a permit back; where somebody waits for it, the core hands it on."""
        self.state.tokens -= permit.tokens
        permit.engine.life.answered |= ended is Ended.SUCCEEDED
        if self.queue.waiting:
            self.freed(permit, ended)
            return
        self.queue.leave(permit.ref)
        permit.engine.life.leave()
        if permit.engine is self.engine:
            self.tune(permit.generation, ended)
        if self.left is not None:
            self.left()

    def tune(self, generation: int, ended: Ended) -> list[Ref]:
        """Move the limit by how a generation ended; return who may run now.

        Args:
            generation: of the limit, when its permit was given.
            ended: how.
        """
        limit = self.limit
        if ended is Ended.SUCCEEDED:
            changed = limit.succeeded()
        elif ended is Ended.RATE_LIMITED:
            # Who is refused has given its permit back, but ran beside the rest.
            changed = limit.refused(generation, self.queue.running + 1)
        else:
            return []
        return self.queue.open(limit.limit) if changed else []
