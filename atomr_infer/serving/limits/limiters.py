"""All rate limits of a serving tree: those of providers' keys, and those of ours.

A provider's limit is on a key, for a model, at an address: deployments that share all
three share the limit, on all nodes.  A key is known by a digest of it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import attrs

from atomr.cluster.permits import FIRST, Limit, NotLimitingError, PermitService
from atomr_infer.errors import ConfigError
from atomr_infer.model.secret import HeaderSecret
from atomr_infer.policy.limits.rate_permits import LONGEST_S, Dimension
from atomr_infer.policy.limits.told_limits import lowered
from atomr_infer.serving.alive import Use
from atomr_infer.serving.limits.announced import AnnouncedLimits
from atomr_infer.serving.limits.limiter import MODES, RateGate, deaf, limit_name
from atomr_infer.serving.limits.shared_limits import (
    SharedLimits,
    ShownLimit,
    shown,
    shown_other,
)
from atomr_infer.serving.limits.told import SharedTold

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from atomr.cluster.permits import Past
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.rate_limits import RateLimits
    from atomr_infer.policy.limits.rate_permits import Counted
    from atomr_infer.serving.limits.gates import Gates
    from atomr_infer.serving.node import ServingNode
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

_FLOOR = 0.1
"""What is divided among the nodes for good: what one has that is cut off."""

_WILD = frozenset("*?[")

_CONCURRENT_FLOOR = 0.5
"""Of what is under way at once, more: a home that was restarted lends nothing until
all requests of before must have ended."""


@attrs.frozen
class Asks:
    """Whom a deployment asks, as far as limits want to know.

    Attributes:
        provider: its runtime and address, as errors say it.
        account: a digest of its key, or what stands for it.
    """

    provider: str
    account: str

    def limiter(self, deployment: Deployment) -> str:
        """Return what the limits are called in the cluster, but for what they count."""
        return f"{self.provider} {self.account} {_model(deployment)}"


class Limiters:
    """The gates that keep rate limits, by what they are called in the cluster.

    Attributes:
        service: has the permits.
        announced: takes part in those that other nodes use.
        told: shares what providers tell of them.
    """

    def __init__(self, gates: Gates, node: ServingNode) -> None:
        self.service = PermitService()
        node.add(self.service)
        self._node = node
        node.remember(self._uses)
        self.announced = AnnouncedLimits(node, self.service)
        node.add(self.announced)
        self.told = SharedTold(node, self._take_told)
        node.add(self.told)
        self._gates = gates
        self._voters = node.voters
        self._is_alone = node.is_alone
        self._shared: dict[str, SharedLimits] = {}
        self._of_deployments: dict[str, str] = {}

    # --- deployments ----------------------------------------------------------------

    def check(
        self, deployment: Deployment, asks: Asks, *, expected: Collection[str] = ()
    ) -> None:
        """Refuse a deployment that :meth:`add` cannot take.

        Args:
            deployment: whose attempts.
            asks: whom it asks.
            expected: names of those that change together with it.

        Raises:
            ConfigError: another one with the same key and model has other limits.
        """
        shared = self._shared.get(asks.limiter(deployment))
        if shared is None or shared.declared == deployment.rate_limits:
            return
        others = sorted(shared.users.difference({deployment.name}, expected))
        if others:
            raise ConfigError(
                f"deployment {deployment.name!r}: its rate limits differ from those of"
                f" {others[0]!r}, which has the same key and model; give both the same"
                " [deployment.rate_limits]"
            )

    def add(self, deployment: Deployment, asks: Asks) -> None:
        """Let the attempts at a deployment pass its rate limits, if it has some.

        Those that share them have the same ones from now on.

        Args:
            deployment: whose attempts.
            asks: whom it asks.
        """
        limits, name = deployment.rate_limits, asks.limiter(deployment)
        before = self._of_deployments.get(deployment.name)
        if before is not None and (before != name or limits is None):
            self.remove(deployment.name)
        if limits is None:
            return
        shared = self._shared.get(name)
        if shared is None:
            gate = self._open(
                name,
                limits,
                owner=f"{asks.provider}, model {_model(deployment)}",
                # The same for all that share it, where theirs is no longer.
                longest_s=max(LONGEST_S, deployment.timeouts.total_s),
                hear=partial(self._hear, name) if _is_one_s(deployment) else deaf,
            )
            shared = SharedLimits(gate, limits, account=asks.account)
            self._shared[name] = shared
        elif shared.declared != limits:
            self._renew(name, shared, limits)
        if deployment.name not in shared.users:
            shared.users.add(deployment.name)
            self._of_deployments[deployment.name] = name
            self._gates.add_for_attempts(deployment.name, shared.gate)

    def _renew(self, name: str, shared: SharedLimits, limits: RateLimits) -> None:
        """Take other limits for those that have the same key and model."""
        gate, shared.declared = shared.gate, limits
        shared.gate = self._open(
            name,
            shared.limits,
            owner=gate.owner,
            longest_s=gate.longest_s,
            before=gate,
            hear=gate.hear,
        )
        for user in shared.users:
            self._gates.remove_for_attempts(user, gate)
            self._gates.add_for_attempts(user, shared.gate)

    # --- what a provider tells ------------------------------------------------------

    def _hear(self, name: str, headers: Mapping[str, str]) -> None:
        """Take the headers of an answer to somebody who passed a gate."""
        shared = self._shared.get(name)
        if shared is None:
            return
        told = shared.told
        says = told.hear(headers)
        if not says and told.confirms(headers):
            is_other = told.believed != shared.believed
            says = self.told.is_due(name, is_other=is_other)
        if says:
            self.told.say(name, told.believed)
            self._take_told(name, told.believed)

    def _take_told(self, name: str, believed: Mapping[Dimension, int]) -> None:
        """Keep no more than what a provider has told this node or another one."""
        shared = self._shared.get(name)
        if shared is None or shared.believed == believed:
            return
        limits = lowered(shared.declared, believed)  # may refuse it
        gate, shared.believed = shared.gate, believed
        if limits == gate.limits:
            return
        gate.take(limits)
        for each in gate.counted:
            self.announced.use(self._limit(name, each, limits), past=None)
        for problem in shared.problems:
            log.warning("%s: %s", gate.owner, problem)

    def problems(self, deployment: str) -> tuple[str, ...]:
        """Return which limits of a deployment are above what its provider tells."""
        name = self._of_deployments.get(deployment)
        return () if name is None else self._shared[name].problems

    def remove(self, deployment: str) -> None:
        """Forget a deployment, and limits that nobody uses any more."""
        name = self._of_deployments.pop(deployment, None)
        if name is None:
            return
        shared = self._shared[name]
        self._gates.remove_for_attempts(deployment, shared.gate)
        shared.users.discard(deployment)
        if not shared.users:
            self._close(name)

    # --- keys of ours, and whatever else has limits ---------------------------------

    def gate_of(
        self,
        owner: str,
        limits: RateLimits,
        *,
        longest_s: float,
        is_new: bool = False,
        called: str = "",
    ) -> RateGate:
        """Return the gate of a virtual key's limits, or a team's.

        With other limits than before it is another gate; :meth:`forget` ends it.

        Args:
            owner: whose they are, as ``key key_01ab...``: the same on all nodes.
            limits: the terms.
            longest_s: the longest that a request can take.
            is_new: whether this node cannot have used anything of it: its owner did
                not exist before this program.
            called: whose they are, as people are told; "": as ``owner``.
        """
        shared = self._shared.get(owner)
        if shared is not None and shared.gate.limits == limits:
            return shared.gate
        gate = self._open(
            owner,
            limits,
            owner=owner,
            longest_s=longest_s,
            before=None if shared is None else shared.gate,
            past=FIRST if is_new else None,
            called=called,
        )
        self._shared[owner] = SharedLimits(gate, limits)
        return gate

    def forget(self, owner: str) -> None:
        """End the limits of :meth:`gate_of`; who holds permits of them holds on."""
        if owner in self._shared:
            self._close(owner)

    # --- limits of the cluster ------------------------------------------------------

    def _open(  # noqa: PLR0913 - most by keyword
        self,
        name: str,
        limits: RateLimits,
        *,
        owner: str,
        longest_s: float,
        before: RateGate | None = None,
        past: Past | None = None,
        called: str = "",
        hear: Callable[[Mapping[str, str]], None] = deaf,
    ) -> RateGate:
        """Take part in limits, in place of those before: what is used stays so."""
        gate = RateGate(
            self.service,
            limits,
            name=name,
            owner=owner,
            longest_s=longest_s,
            called=called,
            has_others=not self._is_alone,
            hear=hear,
        )
        old = set() if before is None else {each.dimension for each in before.counted}
        for each in gate.counted:
            old.discard(each.dimension)
            limit = self._limit(name, each, limits)
            self.announced.use(limit, past=self._past(each) if past is None else past)
        for dimension in old:
            self.announced.leave(limit_name(name, dimension))
        return gate

    def _past(self, each: Counted) -> Past | None:
        """Return what is known of a limit's uses; None: what the node knows."""
        if each.dimension is not Dimension.CONCURRENT:
            return None
        # What a process had under way has ended with it.
        known = self.announced.past or self._node.past()
        return attrs.evolve(known, used=0)

    def _limit(self, name: str, each: Counted, limits: RateLimits) -> Limit:
        floor = _CONCURRENT_FLOOR if each.dimension is Dimension.CONCURRENT else _FLOOR
        return Limit(
            limit_name(name, each.dimension),
            each.permits,
            each.window_s,
            voters=self._voters,
            # Others may borrow of one voter, too; who is alone has nobody to lend to.
            floor_fraction=1.0 if self._is_alone else floor,
            mode=MODES[limits.mode],
        )

    def _close(self, name: str) -> None:
        self.told.leave(name)
        for each in self._shared.pop(name).gate.counted:
            self.announced.leave(limit_name(name, each.dimension))

    def _uses(self) -> dict[str, Use]:
        """Return what is used of each limit now."""
        try:
            return {
                limit.name: Use(self.service.state(limit.name).used, limit.cooling_s)
                for limit in self.service.limits
            }
        except NotLimitingError:
            return {}  # the node ends before it has begun

    # --- what operators see ---------------------------------------------------------

    def shown(self) -> list[ShownLimit]:
        """Return all limits, as they stand on this node; then those of others alone."""
        mine = [
            shown(shared, each)
            for _, shared in sorted(self._shared.items())
            for each in shared.gate.counted
        ]
        others = [shown_other(*each) for each in self.announced.others()]
        return [*mine, *sorted(others, key=lambda each: (each.owner, each.counts))]


def _model(deployment: Deployment) -> str:
    """Return the model, or the names that its clients use for its models."""
    return deployment.model or " ".join(sorted(deployment.serves))


def _is_one_s(deployment: Deployment) -> bool:
    """Whether the limits are of one key for one model, as a provider's are."""
    serves = deployment.serves
    is_one_model = deployment.model is not None or (
        len(serves) == 1 and not _WILD.intersection(serves[0])
    )
    is_one_key = not isinstance(deployment.credential, HeaderSecret)
    return is_one_model and is_one_key and len(deployment.credentials) <= 1


def limits_shown(serving: Serving) -> list[ShownLimit]:
    """Return all rate limits, as they stand on this node."""
    return serving.limits.shown()
