"""What the serving tree shares: model table, routing, phases; and how to reach it.

One object, read everywhere and written in few places, as an ETS table would
be: looking something up must not cost a message.  What changes the tree goes
to the deployment manager as a call.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from atomr.otp import call
from atomr.waking import Wakeup
from atomr_infer.errors import InferenceError, NotReadyError
from atomr_infer.model.secret import HeaderSecret
from atomr_infer.policy.failures.hedging import HedgeBudget
from atomr_infer.policy.routing.model_table import ModelTable
from atomr_infer.remote.http.watchdog import Watchdog
from atomr_infer.serving.deployments.deploying import deploy, keeps_none
from atomr_infer.serving.deployments.groups import Groups
from atomr_infer.serving.deployments.replacing import drain, replace
from atomr_infer.serving.gpu_seats import GpuSeats
from atomr_infer.serving.limits.breakers import Breakers
from atomr_infer.serving.limits.budgets import Budgets
from atomr_infer.serving.limits.gates import Gates
from atomr_infer.serving.limits.key_gates import KeyGates
from atomr_infer.serving.limits.key_ring import KeyRing
from atomr_infer.serving.limits.limiters import Limiters
from atomr_infer.serving.names import MANAGER
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.estimates import estimated
from atomr_infer.serving.replicas.fresh_error import fresh
from atomr_infer.serving.replicas.readiness import Readiness, readiness_of
from atomr_infer.serving.replicas.replica import Phase, ReplicaState
from atomr_infer.serving.replicas.routing_table import Idle, RoutingTable
from atomr_infer.serving.requests.meters import Meters
from atomr_infer.serving.requests.prices import Prices
from atomr_infer.serving.requests.usage import UsageLedger
from atomr_infer.serving.requests.ways import Ways
from atomr_infer.serving.swapping.hot_swaps import HotSwaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.cost import CostEstimate
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.credentials import Credentials
    from atomr_infer.serving.far.service import FarInference
    from atomr_infer.serving.lifecycle import Lifecycle
    from atomr_infer.serving.node import ServingNode
    from atomr_infer.serving.placing.alone import AnyOrders
    from atomr_infer.serving.replicas.blueprint import Blueprint
    from atomr_infer.serving.replicas.far_replica import FarReplica


class Serving:
    """What the parts of the serving tree share, and how others reach it.

    The model table is replaced, never changed: a request keeps the one that it
    started with.  Only the deployment manager publishes one.
    """

    def __init__(self, node: ServingNode) -> None:
        self.node = node
        self._table = ModelTable()
        self._by_name: dict[str, Deployment] = {}
        self._routing: dict[str, RoutingTable] = {}
        self._failures: dict[str, InferenceError] = {}
        self._phases: dict[str, Phase] = {}
        self.far_replicas: dict[str, tuple[FarReplica, ...]] = {}
        self.replicas_changed = Wakeup()
        self.far: FarInference
        self._blueprints: dict[str, Blueprint] = {}
        self._key_headers: frozenset[str] = frozenset()
        self._hedges: dict[str, HedgeBudget] = {}
        self.groups = Groups(self)
        self.hot_swaps = HotSwaps(self)
        self.lifecycle: Lifecycle | None = None
        self.draining: frozenset[str] = frozenset()
        self.elsewhere: dict[str, Deployment] = {}
        self.asks_of: Callable[[Deployment], tuple[str, ...]] = lambda _: ()
        self.has_met = True  # those who tell it what is deployed
        self.orders: AnyOrders
        self.replacing: set[str] = set()
        self.breakers = Breakers()
        self.gates = Gates()
        self.budgets = Budgets(self, node)
        self.usage = UsageLedger(
            node.file("usage.sqlite"),
            cost=lambda spent: self.prices.cost(spent, self._by_name),
            away=node.roster.away,
        )
        node.add(self.usage)
        self.limits = Limiters(self.gates, node)
        self.key_gates = KeyGates(self)
        self.key_ring = KeyRing(node.replicator, self.key_gates, others=node.others)
        self.watchdog = Watchdog()
        self.gpu_seats = GpuSeats()
        self.prices = Prices()
        self.meters = Meters()
        self.started_at_s = int(time.time())
        self.ways = Ways()

    @property
    def table(self) -> ModelTable:
        """The public model names, as of now."""
        return self._table

    @property
    def deployments(self) -> Mapping[str, Deployment]:
        """All deployments by name, as of now; the failed ones too."""
        return self._by_name

    def routing(self, name: str) -> RoutingTable:
        """Return the replicas of a deployment that exists."""
        return self._routing[name]

    def askable(self, name: str) -> RoutingTable:
        """Return the replicas of a deployment that can be asked now.

        Raises:
            NotReadyError: it has failed, or it is not there any more.
        """
        if (failure := self._failures.get(name)) is not None:
            raise fresh(failure)
        if name not in self._routing:
            raise NotReadyError(f"{name} was stopped")
        return self._routing[name]

    def idle_replica(self, deployment: Deployment, batch: ExecuteBatch) -> Idle | None:
        """Return this node's replica that is asked next, and why; None: none runs."""
        routing = self._routing.get(deployment.name)
        if routing is None or deployment.name in self._failures:
            return None
        return routing.idle(deployment.serving, batch)

    @property
    def key_headers(self) -> frozenset[str]:
        """The headers in which some deployment's clients send a key of their own."""
        return self._key_headers

    def with_client_keys(
        self, batch: ExecuteBatch, headers: Mapping[str, str]
    ) -> ExecuteBatch:
        """Return a request with those of its headers that can be its client's key.

        Only headers that some deployment names as such: no other can become one.

        Args:
            batch: the request.
            headers: all headers of the request, by lower-case name.
        """
        keys = {name: headers[name] for name in self._key_headers if name in headers}
        if not keys:
            return batch
        return attrs.evolve(batch, client_headers={**batch.client_headers, **keys})

    def hedge_budget(self, deployment: Deployment) -> HedgeBudget:
        """Return what a deployment's hedges are paid with."""
        name = deployment.name
        if name not in self._hedges:
            self._hedges[name] = HedgeBudget(deployment.hedge.max_fraction)
        return self._hedges[name]

    def readiness(self) -> Readiness:
        """Return whether this node can be sent requests."""
        is_new, routing = self.node.is_starting, self.routing
        found = readiness_of(self._phases, self.is_elsewhere, routing, is_new=is_new)
        waits_for = [] if self.has_met else ["other nodes"]
        if self.key_ring.is_taken and self.key_ring.is_newcomer:
            waits_for.append("the virtual keys of other nodes")
        is_ready = found.ready and not waits_for
        return attrs.evolve(found, ready=is_ready, waits_for=tuple(waits_for))

    def is_elsewhere(self, name: str) -> bool:
        """Whether a deployment's names are served here, and only by other nodes."""
        return name in self.elsewhere and name not in self._blueprints

    def is_loading(self, name: str) -> bool:
        """Whether a deployment does not serve yet."""
        return self._phases.get(name) is Phase.LOADING

    # --- written by the deployment manager and the coordinators -----------------

    def publish(self, table: ModelTable, *new: RoutingTable) -> None:
        """Make ``table`` the one that new requests are routed by.

        Args:
            table: all deployments from now on.
            new: the routing tables of those that were not there before.
        """
        self._table, before = table, self._by_name
        self._by_name = {d.name: d for d in table.deployments}
        self.budgets.publish(table.deployments)
        for name in self._routing.keys() - self._by_name.keys():
            self.breakers.remove(name)
            self.prices.remove(name)
            self.limits.remove(name)
            self._hedges.pop(name, None)
            self.groups.forget(name)
        for name, was in before.items():
            now = self._by_name.get(name)
            if now is not None and now.hedge != was.hedge:
                self._hedges.pop(name, None)
        self.replicas_changed.set()
        for routing in new:
            routing.join(self.node.name, self.far_replicas)
        known = self._routing | {routing.deployment: routing for routing in new}
        self._routing = {name: known[name] for name in self._by_name}
        for name in self._failures.keys() - self._by_name.keys():
            del self._failures[name]
        for name in self._blueprints.keys() - self._by_name.keys():
            del self._blueprints[name]
        self._key_headers = frozenset(
            deployment.credential.header
            for deployment in table.deployments
            if isinstance(deployment.credential, HeaderSecret)
        )
        self._phases = {
            name: self._phases.get(name, Phase.LOADING) for name in self._by_name
        }

    def leave(self, name: str) -> None:
        """Route to a deployment's replicas on this node no more.

        Its names go on being served where other nodes have it.
        """
        self._blueprints.pop(name, None)
        self._failures.pop(name, None)
        self._phases.pop(name, None)
        self.breakers.remove(name)
        self.prices.remove(name)
        other = self.elsewhere.get(name)
        if other is None:
            self.publish(self._table.without(name))
        else:
            # The replicas that end are in the table of before.
            self.publish(self._table.with_in_its_place(other), RoutingTable(name))
            self.prices.expect(other)

    def asked_by(self, name: str) -> tuple[str, ...]:
        """Return the models that a deployment asks others for; none: a model."""
        if (blueprint := self._blueprints.get(name)) is not None:
            return blueprint.source.asks
        other = self._by_name.get(name)
        return () if other is None else self.asks_of(other)

    def hold(self, name: str, blueprint: Blueprint) -> None:
        """Keep what a published deployment is made from."""
        self._blueprints[name] = blueprint

    def blueprint(self, name: str) -> Blueprint:
        """Return what a deployment that exists is made from."""
        return self._blueprints[name]

    def enter(self, name: str, phase: Phase) -> None:
        """Take a deployment's new phase."""
        self.replicas_changed.set()
        if name in self._by_name and name not in self._failures:
            self._phases[name] = phase

    def fail(self, name: str, error: InferenceError) -> None:
        """Answer every further request for this deployment with ``error``."""
        self._failures[name] = error
        self._phases[name] = Phase.FAILED
        self.replicas_changed.set()

    # --- what programs and commands ask for --------------------------------------

    async def deploy(
        self,
        deployment: Deployment,
        *,
        progress: Callable[[ReplicaState], None] | None = None,
        expected: Iterable[str] = (),
        keeps: Callable[[InferenceError], bool] = keeps_none,
    ) -> None:
        """Start serving a deployment and wait until it serves.

        Args:
            deployment: what to serve.
            expected: names of deployments that will come, which it may fall
                back to.
            progress: called about ten times a second, while it loads, with
                each replica.
            keeps: whether one that could not be started stays, and is tried again;
                the error is raised all the same.

        Raises:
            ConfigError: it cannot work as written; nothing was changed.
            InferenceError: it could not be started; it was removed again.

        Cancellation: removes it again.
        """
        names = frozenset(expected)
        await deploy(self, deployment, progress, names, keeps=keeps)

    async def change(self, deployment: Deployment) -> None:
        """Take another deployment for the one of its name, which serves on.

        Raises:
            ConfigError: there is none, or it cannot become that one while it
                serves; nothing was changed.
            NotReadyError: it is loading.
        """
        refused = await call(MANAGER, messages.Change(deployment), timeout_s=None)
        if refused is not None:
            raise refused

    async def replace(
        self, *deployments: Deployment, expected: Iterable[str] = ()
    ) -> None:
        """Take other deployments for those of their names; they serve meanwhile.

        What is looked up for each request, how many may run and wait, replicas and
        time-outs change in place.  What a client or an engine is made of has another
        one opened, which takes the traffic when all serve; requests that run keep
        theirs.  All of it becomes true in one step, or nothing does.

        Args:
            deployments: the other ones.
            expected: names of those that come together with them.

        Raises:
            ConfigError: there is none of a name, or one cannot work as written;
                nothing was changed.
            NotReadyError: one loads, is being replaced, or was stopped meanwhile.
            InferenceError: an engine could not be opened; all is as it was.

        Cancellation: all is as it was.
        """
        await replace(self, deployments, frozenset(expected))

    async def undeploy(self, name: str, *, drain_s: float = 0.0) -> bool:
        """Stop serving a deployment: its name is nobody's at once.

        Args:
            name: the deployment's.
            drain_s: how long requests that run or wait may still take, in seconds;
                what is left then ends with an error.

        Returns:
            False when there is no deployment of that name.

        Cancellation: ends what still runs.
        """
        if drain_s:
            return await drain(name, drain_s)
        return await call(MANAGER, messages.Undeploy(name), timeout_s=None)

    def usable_replicas(self, name: str) -> tuple[ReplicaState, ...]:
        """Return those of a deployment that has not failed."""
        return () if name in self._failures else self.replicas(name)

    async def estimate_cost(self, batch: ExecuteBatch) -> CostEstimate | None:
        """Return what a request may cost, before it is made; nothing is asked.

        Args:
            batch: the request; its ``model`` is the public name.

        Returns:
            None when the model's price is not known.

        Raises:
            ModelNotFoundError: nobody serves the model.
        """
        return await estimated(self, batch)

    def renew_credentials(self, name: str) -> bool:
        """Read a deployment's keys anew, take them for good, and make sessions anew.

        Running requests keep the key and the connection that they have.

        Returns:
            False when there is no deployment of that name with keys that its
            requests ask for.
        """
        credentials = self._keys(name)
        if credentials is None:
            return False
        credentials.renew()
        return True

    def _keys(self, name: str) -> Credentials | None:
        blueprint = self._blueprints.get(name)
        return None if blueprint is None else blueprint.keys

    def key_states(self, name: str) -> tuple[str, ...]:
        """Return what is known of each of a deployment's keys; none: not judged."""
        credentials = self._keys(name)
        return () if credentials is None else credentials.states

    def replicas(self, name: str) -> tuple[ReplicaState, ...]:
        """Return a deployment's replicas, first one first; none of an unknown one."""
        table = self._routing.get(name)
        return () if table is None else table.replicas
