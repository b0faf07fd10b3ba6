"""What virtual keys and teams may use: the gates of their requests.

Each node keeps the gates of all keys, whether it is asked by them or not: a limit has
a home among the nodes, and a budget a ledger, and either may be here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.policy.limits.rate_permits import LONGEST_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.rate_limits import RateLimits
    from atomr_infer.model.team import Team
    from atomr_infer.model.virtual_key import VirtualKey
    from atomr_infer.serving.limits.gates import Gate
    from atomr_infer.serving.limits.limiter import RateGate
    from atomr_infer.serving.shared import Serving


class KeyGates:
    """The gates of virtual keys and teams."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._limited: dict[str, RateGate] = {}
        self._is_passed = False

    def keep(self, key: VirtualKey, *, is_new: bool = False) -> None:
        """Keep a key's limits and budgets, in place of those that it had.

        Args:
            key: the key.
            is_new: whether it was made while this program ran, so that this node
                has used nothing of it before.
        """
        owner = _key(key.id)
        called = f"key {key.name!r}"
        self._limit(owner, key.rate_limits, is_new=is_new, called=called)
        self._serving.budgets.give(owner, key.budgets)

    def end(self, key: str) -> None:
        """Forget a key's limits and budgets; requests that run hold on."""
        owner = _key(key)
        self._limit(owner, None)
        self._serving.budgets.give(owner, ())

    def take_teams(self, teams: Iterable[Team]) -> None:
        """Keep the limits of teams, in place of those from before."""
        teams = tuple(teams)
        self._serving.node.agreement.take_teams(teams)
        limits = {_team(team.name): team.rate_limits for team in teams}
        gone = [each for each in self._limited if each.startswith(_TEAM)]
        for owner in {*gone, *limits}:
            self._limit(owner, limits.get(owner))

    def _limit(
        self,
        owner: str,
        limits: RateLimits | None,
        *,
        is_new: bool = False,
        called: str = "",
    ) -> None:
        if limits is None:
            if self._limited.pop(owner, None) is not None:
                self._serving.limits.forget(owner)
            return
        self._limited[owner] = self._serving.limits.gate_of(
            owner, limits, longest_s=LONGEST_S, is_new=is_new, called=called
        )
        if not self._is_passed:
            self._is_passed = True
            self._serving.gates.add_for_requests(self._of_asker)

    def limits_of(self, key: str) -> RateGate | None:
        """Return the gate of a virtual key's own limits; None: it has none."""
        return self._limited.get(_key(key))

    def _of_asker(self, batch: ExecuteBatch) -> Iterable[Gate]:
        """Return the limits of who asks: its team's, and its key's."""
        asker = batch.asker
        if asker is None:
            return ()
        owners = [_key(asker.key)]
        if asker.team is not None:
            owners.insert(0, _team(asker.team))
        return [self._limited[each] for each in owners if each in self._limited]


_TEAM = "team "


def _team(name: str) -> str:
    return f"{_TEAM}{name}"


def _key(id_: str) -> str:
    return f"key {id_}"
