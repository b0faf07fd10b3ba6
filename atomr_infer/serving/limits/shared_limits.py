"""Limits that deployments share: what is kept of them, and what operators see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.policy.limits.rate_permits import Dimension
from atomr_infer.policy.limits.told_limits import ToldLimits, above, lowered
from atomr_infer.serving.limits.limiter import RateGate

if TYPE_CHECKING:
    from atomr.cluster.permits import Limit
    from atomr_infer.policy.limits.rate_permits import Counted


@attrs.frozen(kw_only=True)
class ShownLimit:
    """One limit, as an operator sees it on one node.

    Attributes:
        owner: whose it is.
        counts: what is counted, as it is written in a configuration.
        limit: how much there is in a window.
        window_s: how long that is.
        used: how much is used on this node now; of a soft limit, on all.
        waiting: requests that wait here.
        mode: how nodes keep it together.
        withheld: what share of it is withheld after a provider's refusals.
        told: how much the provider tells that there is in a minute; None: it does
            not, or not so that it is certain.
        shadow_refusals: requests that were not refused, as it is a shadow; None: it
            is none.
        nodes: those that use it, where this one does not: what is used there, they
            say.
        account: a digest of the key that it is of at a provider, or what stands for
            it; "": a limit of ours.
    """

    owner: str
    counts: str
    limit: int
    window_s: float
    used: int
    waiting: int
    mode: str
    withheld: float
    shadow_refusals: int | None
    told: int | None = None
    nodes: tuple[str, ...] = ()
    account: str = ""


@attrs.define
class SharedLimits:
    """A gate, and who passes it.

    Attributes:
        gate: keeps the limits, no higher than what a provider tells.
        declared: the limits, as they stand in a file.
        told: what the provider has told this node.
        believed: what it has told any node, last.
        users: whose attempts pass the gate.
        account: whose they are at a provider; "": they are ours.
    """

    gate: RateGate
    declared: RateLimits
    told: ToldLimits = attrs.field(factory=ToldLimits)
    believed: Mapping[Dimension, int] = attrs.field(factory=dict)
    users: set[str] = attrs.field(factory=set)
    account: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the declared ones is above what the provider tells."""
        found = above(self.declared, self.believed)
        return tuple(
            f"{name} = {declared} is above the {most} that its provider tells; so many"
            " are kept"
            for name, (declared, most) in found.items()
        )

    @property
    def limits(self) -> RateLimits:
        """What is kept."""
        return lowered(self.declared, self.believed)


def shown(shared: SharedLimits, each: Counted) -> ShownLimit:
    """Return a limit that this node uses."""
    gate, limits = shared.gate, shared.gate.limits
    return ShownLimit(
        owner=gate.owner,
        counts=each.dimension.value,
        limit=each.permits,
        window_s=each.window_s
        if each.dimension is Dimension.CONCURRENT
        else limits.window_s,
        used=gate.used(each),
        waiting=gate.waiting,
        mode=limits.mode.value,
        withheld=gate.withheld,
        told=shared.believed.get(each.dimension),
        shadow_refusals=gate.shadow.refused if limits.shadow else None,
        account=shared.account,
    )


def shown_other(limit: Limit, nodes: tuple[str, ...]) -> ShownLimit:
    """Return a limit that only other nodes use."""
    owner, _, counts = limit.name.rpartition(" ")
    return ShownLimit(
        owner=owner,
        counts=counts,
        limit=limit.permits,
        window_s=limit.window_s,
        used=0,
        waiting=0,
        mode=limit.mode.value,
        withheld=0.0,
        shadow_refusals=None,
        nodes=nodes,
    )
