"""What the gate of rate limits gives: permits, until the request has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr.cluster.permits import Permits, PermitService
    from atomr_infer.policy.limits.demand import Used
    from atomr_infer.policy.limits.rate_permits import Counted
    from atomr_infer.serving.limits.limiter import RateGate


class RateHold:
    """Permits of all limits that a request needs."""

    __slots__ = ("_gate", "_taken")

    def __init__(self, gate: RateGate, taken: list[tuple[Counted, Permits]]) -> None:
        self._gate = gate
        self._taken = taken

    def settle(self, used: Used) -> None:
        """Take what was used; a refusal tunes the limits down."""
        service = self._gate.service
        for each, permits in self._taken:
            service.settle(permits, each.used(used))
        if used.limited:
            self._gate.refused(used.retry_after_s)
        elif used.headers is not None:
            self._gate.hear(used.headers)

    def cancel(self) -> None:
        """Give all back."""
        give_back(self._gate.service, self._taken)


def give_back(service: PermitService, taken: list[tuple[Counted, Permits]]) -> None:
    """Give back all that was taken: nobody was asked."""
    for _, permits in taken:
        service.settle(permits, 0)
