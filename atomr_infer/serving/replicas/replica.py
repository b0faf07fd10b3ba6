"""What the processes of a deployment know of one replica.

``ReplicaState`` is written by its engine core alone and read by everyone else,
as an ETS table would be: looking at a load must not cost a message.
"""

from __future__ import annotations

import math
from enum import Enum

import attrs
import trio

from atomr.refs import Pid, Ref
from atomr_infer.errors import InferenceError
from atomr_infer.model.capabilities import Capabilities
from atomr_infer.runtimes.contract import ModelRunner, Progress
from atomr_infer.serving.replicas.engine_life import EngineLife
from atomr_infer.serving.replicas.permits import Permits

# How much a request's first words count beside those before, and how long a time
# that was measured counts for half of itself.
_SHARE = 0.2
_FADE_S = 10.0


class Phase(Enum):
    """Where a replica, or a whole deployment, is in its life."""

    LOADING = "loading"
    SERVING = "serving"
    ASLEEP = "asleep"
    WAKING = "waking"
    RESTARTING = "restarting"
    FAILED = "failed"


TAKES_REQUESTS = frozenset({Phase.SERVING, Phase.ASLEEP, Phase.WAKING})
"""The phases in which a request is answered, if need be after a start."""


@attrs.define(eq=False)
class ReplicaState:
    """One replica as its engine core last saw it.

    Attributes:
        number: 0 for the first replica.
        core: the engine core's pid.
        phase: whether its engine can run.
        permits: where a request that finds a place takes it, and who has one.
        arriving: requests that have picked it and wait for its answer; they
            count themselves, so that those who pick at once see each other.
        tokens: about how many tokens its requests have.
        starts: times that its engine became ready.
        engine_pid: the engine's operating system process, when it has one.
        progress: the last step of a start that still goes on.
        error: why it is restarting or has failed.
        node: the name of its node.
    """

    number: int
    core: Pid
    permits: Permits = attrs.field(repr=False)
    phase: Phase = Phase.LOADING
    arriving: int = 0
    tokens: int = 0
    starts: int = 0
    engine_pid: int | None = None
    progress: Progress | None = None
    error: InferenceError | None = None
    node: str = ""
    _first_s: float = 0.0
    _heard_at: float = 0.0

    is_local = True

    @property
    def label(self) -> str:
        """Its node and number: the same on all nodes."""
        return f"{self.node}/{self.number}"

    @property
    def first_s(self) -> float:
        """Seconds to the first words of late; fades while nobody asks, for a try."""
        if not self._first_s:
            return 0.0
        unasked_s: float = trio.current_time() - self._heard_at
        return self._first_s * math.pow(0.5, unasked_s / _FADE_S)

    def heard(self, first_s: float, now: float) -> None:
        """Note how long a request's first words took."""
        before_s = self._first_s or first_s
        self._first_s = before_s + _SHARE * (first_s - before_s)
        self._heard_at = now

    @property
    def ready(self) -> bool:
        """True when its engine can run now."""
        return self.phase is Phase.SERVING

    @property
    def asleep(self) -> bool:
        """True when a request would have its engine started."""
        return self.phase is Phase.ASLEEP

    @property
    def running(self) -> int:
        """Generations that hold a permit."""
        return self.permits.queue.running

    @property
    def waiting(self) -> int:
        """Requests in its queue."""
        return self.permits.queue.waiting

    @property
    def limit(self) -> int:
        """Permits that may be out at once, as far as the upstream lets us."""
        return self.permits.limit.limit

    @property
    def outstanding(self) -> int:
        """Requests running, waiting and on their way."""
        return self.running + self.waiting + self.arriving


@attrs.frozen(eq=False)
class Lease:
    """The right to run one generation on a replica's engine, until released.

    Attributes:
        ref: what the engine core knows it by.
        core: whom to give it back to.
        runner: what runs the generation.
        life: the runner's; a generation holds on to it.
        capabilities: the runner's.
        model: what the runner's deployment asks for; None: what the client does.
    """

    ref: Ref
    core: Pid
    runner: ModelRunner
    life: EngineLife
    capabilities: Capabilities
    model: str | None = None
