"""Whose turn it is in a group: several deployments under one public name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.policy.routing.replica_choice import Member, next_member
from atomr_infer.serving.limits.gates import Outlook

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.policy.routing.model_table import Route
    from atomr_infer.serving.shared import Serving


class Groups:
    """Chooses among the deployments of a name."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._turn = 0
        self._turns: dict[str, int] = {}
        self._owed: dict[str, float] = {}

    def choose(
        self, route: Route, look: Callable[[Route], Outlook]
    ) -> tuple[Route, tuple[Route, ...]]:
        """Return the member of a group that takes the next request, and who may then.

        Args:
            route: to the group.
            look: says what is known of the request at a member's gates.

        Returns:
            The one, and the others in order.  Those whose gates are shut to the request
            are left out, unless all are.
        """
        if not route.others:
            return route, ()
        known = {each: look(each) for each in route.group}
        group = [each for each in known if known[each] is not Outlook.SHUT]
        group = group or list(known)
        members = [
            self._member(each.deployment, is_full=known[each] is Outlook.FULL)
            for each in group
        ]
        name = next_member(members, self._owed)
        self._turn += 1
        self._turns[name] = self._turn
        chosen = next(each for each in group if each.deployment == name)
        return chosen, tuple(each for each in group if each is not chosen)

    def forget(self, name: str) -> None:
        """Forget a deployment that is there no more."""
        self._turns.pop(name, None)
        self._owed.pop(name, None)

    def _member(self, name: str, *, is_full: bool) -> Member:
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
            is_full=is_full,
        )
