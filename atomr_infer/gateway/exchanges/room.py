"""What is left of a virtual key's rate limits, for the headers of its answers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atomr.cluster.permits import PermitsError
from atomr_infer.gateway.exchanges.answer_headers import rate_headers
from atomr_infer.policy.limits.rate_permits import Dimension

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from atomr_infer.model.asker import Asker
    from atomr_infer.serving.limits.limiter import RateGate
    from atomr_infer.serving.shared import Serving

_COUNTS = {Dimension.REQUESTS: "requests", Dimension.TOKENS: "tokens"}


def room_of(
    serving: Serving, asker: Asker | None
) -> Callable[[], Iterator[tuple[bytes, bytes]]] | None:
    """Return what says the headers of who asks; None: it has no limits of its own."""
    if asker is None:
        return None
    gate = serving.key_gates.limits_of(asker.key)
    return None if gate is None else partial(_headers, gate)


def _headers(gate: RateGate) -> Iterator[tuple[bytes, bytes]]:
    limits = gate.limits
    for each in gate.counted:
        counts = _COUNTS.get(each.dimension)
        if counts is None:
            continue
        try:
            used = gate.used(each)
        except PermitsError:
            return  # they are being changed
        yield from rate_headers(
            counts, limit=each.permits, used=used, window_s=limits.window_s
        )
