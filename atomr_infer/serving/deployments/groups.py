"""Whose turn it is in a group: several deployments under one public name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.policy.routing.replica_choice import Member, next_member

if TYPE_CHECKING:
    from atomr_infer.policy.routing.model_table import Route
    from atomr_infer.serving.shared import Serving


class Groups:
    """Chooses among the deployments of a name."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._turn = 0
        self._turns: dict[str, int] = {}
        self._owed: dict[str, float] = {}

    def choose(self, route: Route) -> Route:
        """Return the member of a route's group that takes the next request."""
        if not route.others:
            return route
        members = [self._member(each.deployment) for each in route.group]
        chosen = next_member(members, self._owed)
        self._turn += 1
        self._turns[chosen] = self._turn
        return next(each for each in route.group if each.deployment == chosen)

    def forget(self, name: str) -> None:
        """Forget a deployment that is there no more."""
        self._turns.pop(name, None)
        self._owed.pop(name, None)

    def _member(self, name: str) -> Member:
        serving = self._serving
        guard = serving.breakers.of(name)
        ready = serving.routing(name).ready
        refuses = guard is not None and guard.is_open
        # The circuit is this node's: others may reach the upstream.
        usable = any(not (refuses and replica.is_local) for replica in ready)
        return Member(
            name=name,
            usable=usable,
            outstanding=min((replica.outstanding for replica in ready), default=0),
            turn=self._turns.get(name, 0),
            weight=serving.deployments[name].serving.weight,
        )
