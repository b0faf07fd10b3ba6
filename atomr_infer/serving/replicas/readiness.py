"""Whether a node is ready to be sent requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr_infer.serving.replicas.replica import TAKES_REQUESTS, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

ELSEWHERE = "elsewhere"
"""What is said of a deployment that only other nodes run."""

ANSWERS = frozenset(phase.value for phase in TAKES_REQUESTS) | {ELSEWHERE}
"""What is said of deployments that answer."""


@attrs.frozen
class Readiness:
    """What ``/readyz`` says.

    Attributes:
        ready: True when some deployment serves, here or elsewhere, or would be started
            by a request; of a node that starts, when all do that can be started.
        phases: each deployment's phase by name; ``elsewhere`` where others run it.
    """

    ready: bool
    phases: Mapping[str, str]

    @property
    def not_ready(self) -> tuple[str, ...]:
        """The deployments that answer nothing now, by name."""
        return tuple(n for n, phase in self.phases.items() if phase not in ANSWERS)


def readiness_of(
    phases: Mapping[str, Phase],
    is_elsewhere: Callable[[str], bool],
    replicas: Callable[[str], object],
    *,
    is_new: bool,
) -> Readiness:
    """Return whether a node can be sent requests.

    Args:
        phases: each deployment's phase, by name.
        is_elsewhere: whether only other nodes run it.
        replicas: those that a deployment has; one that gave up has none left.
        is_new: whether the node still loads what it was started with.

    >>> phases = {"a": Phase.SERVING, "b": Phase.RESTARTING}
    >>> readiness_of(phases, set().__contains__, phases.get, is_new=False)
    Readiness(ready=True, phases={'a': 'serving', 'b': 'restarting'})
    """
    told = {
        name: ELSEWHERE if is_elsewhere(name) else phase.value
        for name, phase in phases.items()
    }
    answers = {name: phase in ANSWERS for name, phase in told.items()}
    if is_new:
        # A roll-out goes on to the next node when this one is ready, and would leave
        # none that serves the model that takes longest.  But one key that was revoked,
        # or one model that is not there, does not keep it from serving all the others.
        failed = [name for name, phase in phases.items() if phase is Phase.FAILED]
        tried_again = {name for name in failed if replicas(name)}
        counted = [name for name in answers if name not in tried_again] or [*answers]
        ready = bool(answers) and all(answers[name] for name in counted)
    else:
        # A balancer that took the node away for one engine that starts anew would take
        # all the others' answers away, too: on each node at once, for a bad request.
        ready = any(answers.values())
    return Readiness(ready, told)
