"""What becomes of a deployment's engine when the deployment is changed.

Much is looked up for each request, and changes in place.  Some of it a client or an
engine was made with: then another one is made.  All that is not named here counts
as the latter, so that a field that is new does not change by accident.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment, RetryPolicy, Timeouts
    from atomr_infer.model.placement import Placement


def keeps_engine(now: Deployment, wanted: Deployment, *, is_client: bool) -> bool:
    """Whether one deployment becomes the other with the engine that it has.

    Args:
        now: what is served.
        wanted: what is to be served under its name.
        is_client: whether the engine is a client in this process, which keeps the
            bounds on silence and knows whether requests may be sent again.

    >>> from atomr_infer.model.deployment import Deployment, Timeouts
    >>> chat = Deployment(name="chat", runtime="mock")
    >>> patient = attrs.evolve(chat, timeouts=Timeouts(idle_s=300.0))
    >>> keeps_engine(chat, patient, is_client=False)
    True
    >>> keeps_engine(chat, patient, is_client=True)
    False
    >>> watched = attrs.evolve(chat, timeouts=Timeouts(silent_s=60.0))
    >>> keeps_engine(chat, watched, is_client=False)
    False
    >>> keeps_engine(chat, watched, is_client=True)
    True
    """
    same = attrs.evolve(
        wanted,
        serves=now.serves,
        price=now.price,
        default_max_tokens=now.default_max_tokens,
        retry=_retry(now.retry, wanted.retry, is_client=is_client),
        timeouts=_timeouts(now.timeouts, wanted.timeouts, is_client=is_client),
        fallbacks=now.fallbacks,
        on_cut=now.on_cut,
        hedge=now.hedge,
        hot_swap=now.hot_swap,
        breaker=now.breaker,
        serving=now.serving,
        placement=_placement(now, wanted, is_client=is_client),
        rate_limits=now.rate_limits,
        budget=now.budget,
    )
    return same == now


def is_swapped(now: Deployment, wanted: Deployment, *, is_client: bool) -> bool:
    """Whether a deployment takes over step by step, where a file says it anew.

    Args:
        now: what is served.
        wanted: what the file says.
        is_client: see :func:`keeps_engine`.

    >>> from atomr_infer.model.deployment import Deployment
    >>> from atomr_infer.model.swap_plan import SwapPlan
    >>> now = Deployment(name="chat", runtime="mock", hot_swap=SwapPlan())
    >>> is_swapped(now, attrs.evolve(now, options={"reply": "new"}), is_client=True)
    True
    >>> is_swapped(now, attrs.evolve(now, serves=("chat", "small")), is_client=True)
    False
    """
    if wanted.hot_swap is None:
        return False
    return not keeps_engine(now, wanted, is_client=is_client)


def _placement(now: Deployment, wanted: Deployment, *, is_client: bool) -> Placement:
    # The GPUs that a process sees are said when it starts.
    keeps = is_client or now.placement.gpus == wanted.placement.gpus
    return (now if keeps else wanted).placement


def _retry(now: RetryPolicy, wanted: RetryPolicy, *, is_client: bool) -> RetryPolicy:
    return attrs.evolve(now, idempotent=wanted.idempotent) if is_client else now


def _timeouts(now: Timeouts, wanted: Timeouts, *, is_client: bool) -> Timeouts:
    if not is_client:
        # Its process is watched with this one.
        return attrs.evolve(now, silent_s=wanted.silent_s)
    # These are no client's: it is open at once, it is no process, and requests know
    # their end.
    return attrs.evolve(
        wanted,
        load_s=now.load_s,
        silent_s=now.silent_s,
        stuck_s=now.stuck_s,
        total_s=now.total_s,
    )
