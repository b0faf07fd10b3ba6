"""Whether a node is ready to be sent requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr_infer.serving.replicas.replica import TAKES_REQUESTS, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

ELSEWHERE = "elsewhere"
"""What is said of a deployment that only other nodes run."""


@attrs.frozen
class Readiness:
    """What ``/readyz`` says.

    Attributes:
        ready: True when something is deployed, and all of it that runs here serves,
            or would be started by a request.  What could not be started and is tried
            again does not count, as long as something else serves.
        phases: each deployment's phase by name; ``elsewhere`` where others run it.
    """

    ready: bool
    phases: Mapping[str, str]


def readiness_of(
    phases: Mapping[str, Phase],
    is_elsewhere: Callable[[str], bool],
    waiting: Collection[str] = (),
) -> Readiness:
    """Return whether everything that runs here serves.

    Args:
        phases: each deployment's phase, by name.
        is_elsewhere: whether only other nodes run it.
        waiting: those that have failed, and are tried again.

    >>> readiness_of({"a": Phase.SERVING, "b": Phase.LOADING}, {"b"}.__contains__)
    Readiness(ready=True, phases={'a': 'serving', 'b': 'elsewhere'})
    """
    here = {name for name in phases if not is_elsewhere(name)}
    # Else one key that was revoked, or one model that is not there, would keep a node
    # from serving all the others.
    counted = here.difference(waiting) or here
    return Readiness(
        ready=bool(phases) and all(phases[name] in TAKES_REQUESTS for name in counted),
        phases={
            name: phase.value if name in here else ELSEWHERE
            for name, phase in phases.items()
        },
    )
