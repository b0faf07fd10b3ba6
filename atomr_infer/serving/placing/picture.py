"""What one node knows of its cluster's deployments, and what follows from it.

Every node draws its own picture from the replicated maps, and works the plan out
from it (:mod:`atomr_infer.policy.lifecycle.placement`): equal pictures are equal
plans.  What a node that is out of sight has said is kept in the picture for a while,
so that a cut of some seconds moves nothing.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import attrs

from atomr_infer.config.deployment_table import table_deployment
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.placement import Role
from atomr_infer.policy.lifecycle.deployment_state import HOLDS, State, whole
from atomr_infer.policy.lifecycle.placement import Gpus, Placed, Site, Wanted, Why, plan
from atomr_infer.runtimes.loader import plugin_name
from atomr_infer.serving.placing.records import Claim, Entry, Facts

_HARD = frozenset({Why.ROLE, Why.LABEL})
"""The reasons for which a node must stop, though nobody else can take over."""

_NO_CLAIMS: Mapping[str, Claim] = {}


@attrs.frozen(kw_only=True)
class Known:
    """One entry of the catalogue, as this node understands it.

    Attributes:
        entry: as it was put.
        deployment: what it says; None: this version does not understand it.
        problem: why not.
    """

    entry: Entry
    deployment: Deployment | None
    problem: str = ""


def understood(entry: Entry) -> Known:
    """Return an entry with what it says."""
    try:
        return Known(entry=entry, deployment=table_deployment(entry.table))
    except ConfigError as error:
        return Known(entry=entry, deployment=None, problem=error.message)


@attrs.frozen(kw_only=True, slots=False)
class Picture:
    """What a node knows.

    Attributes:
        me: the node's name.
        catalogue: all deployments, by name.
        facts: what each node is, by name; of those that may be counted on.
        claims: what each of them says of its share, by deployment and node.
        away: nodes that are out of sight, and not given up yet.
        declared: digests in nodes' files, by deployment and node.
    """

    me: str
    catalogue: Mapping[str, Known] = attrs.field(factory=dict)
    facts: Mapping[str, Facts] = attrs.field(factory=dict)
    claims: Mapping[str, Mapping[str, Claim]] = attrs.field(factory=dict)
    away: frozenset[str] = frozenset()
    declared: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)

    @cached_property
    def plan(self) -> Mapping[str, Placed]:
        """Where each deployment shall run."""
        return plan(self._wanted.values(), map(self._site, self.facts))

    def explained(self, deployment: Deployment, *, remote: bool) -> Placed:
        """Return where a deployment would run if it were what is given here."""
        name = deployment.name
        wanted = {**self._wanted, name: _wanted(deployment, remote=remote)}
        return plan(wanted.values(), map(self._site, self.facts))[name]

    @cached_property
    def _wanted(self) -> Mapping[str, Wanted]:
        return {
            name: _wanted(known.deployment, remote=known.entry.remote)
            for name, known in self.catalogue.items()
            if known.deployment is not None
        }

    def _site(self, node: str) -> Site:
        facts = self.facts[node]
        held: dict[str, tuple[Gpus, ...]] = {}
        refusals: dict[str, str] = {}
        for name, by_node in self.claims.items():
            claim = by_node.get(node)
            if claim is None:
                continue
            if claim.state in HOLDS:
                held[name] = claim.gpus
            elif claim.state is State.DRAINING:
                held[f"{name} that ends"] = claim.gpus
            elif claim.state is State.FAILED and self._is_of_now(name, claim):
                refusals[name] = claim.reason
        for name, known in self.catalogue.items():
            runtime = known.entry.table.get("runtime")
            if facts.runtimes and plugin_name(str(runtime)) not in facts.runtimes:
                refusals.setdefault(name, f"has no runtime {runtime!r}")
        return Site(
            name=node,
            roles=_roles(facts),
            labels=facts.labels,
            gpus_gib=facts.gpus_gib,
            held=held,
            refusals=refusals,
            leaving=facts.leaving,
        )

    def _is_of_now(self, name: str, claim: Claim) -> bool:
        known = self.catalogue.get(name)
        return known is not None and known.entry.digest == claim.digest

    # --- what this node does ------------------------------------------------------

    def share(self, name: str) -> tuple[Gpus, ...]:
        """Return the GPUs of each replica that this node shall run."""
        placed = self.plan.get(name)
        return () if placed is None else placed.nodes.get(self.me, ())

    def may_end(self, name: str) -> bool:
        """Whether replicas that this node shall run no more are not needed.

        They are until those that shall take their place serve; unless the deployment
        is gone, or must not run on this node at all.
        """
        placed = self.plan.get(name)
        if placed is None:
            return True
        if any(p.node == self.me and p.why in _HARD for p in placed.passed):
            return True
        others = {node: gpus for node, gpus in placed.nodes.items() if node != self.me}
        if not others and not placed.nodes:
            return False
        return all(self._serves(name, node, len(g)) for node, g in others.items())

    def _serves(self, name: str, node: str, replicas: int) -> bool:
        claim = self.claims.get(name, _NO_CLAIMS).get(node)
        return (
            claim is not None
            and node not in self.away
            and claim.state is State.SERVING
            and claim.serving >= replicas
        )

    # --- what people are told -----------------------------------------------------

    def state(self, name: str) -> State:
        """Return the state of a deployment in the whole cluster."""
        placed = self.plan.get(name)
        return whole(
            [c.state for n, c in self._claims_in_sight(name) if self._counts(name, c)],
            placed=placed is not None and bool(placed.nodes),
            wanted=name in self.catalogue,
        )

    def _claims_in_sight(self, name: str) -> list[tuple[str, Claim]]:
        found = self.claims.get(name, _NO_CLAIMS).items()
        return [(node, claim) for node, claim in found if node not in self.away]

    def _counts(self, name: str, claim: Claim) -> bool:
        """Whether a claim is about what is wanted now: an old failure is not."""
        return claim.state is not State.FAILED or self._is_of_now(name, claim)

    def reason(self, name: str) -> str:
        """Return why a deployment does not serve as it should; "": it does."""
        known = self.catalogue.get(name)
        if known is not None and known.deployment is None:
            return known.problem
        told = [
            f"{node}: {claim.reason}"
            for node, claim in sorted(self._claims_in_sight(name))
            if claim.reason and self._counts(name, claim)
        ]
        placed = self.plan.get(name)
        if not told and placed is not None and placed.missing:
            return placed.obstacles
        return "; ".join(told)

    def is_settled(self, name: str) -> bool:
        """Whether all that shall run serves, or has failed."""
        placed = self.plan.get(name)
        if placed is None or not placed.nodes:
            return True
        digest = self.catalogue[name].entry.digest
        for node, gpus in placed.nodes.items():
            claim = self.claims.get(name, _NO_CLAIMS).get(node)
            if claim is None or claim.digest != digest or len(claim.gpus) != len(gpus):
                return False
            if claim.state not in (State.SERVING, State.FAILED):
                return False
        return True


def _wanted(deployment: Deployment, *, remote: bool) -> Wanted:
    return Wanted(
        name=deployment.name,
        replicas=deployment.serving.replicas,
        placement=deployment.placement,
        remote=remote,
    )


def _roles(facts: Facts) -> frozenset[Role]:
    """Return the roles that this version knows."""
    known = {role.value: role for role in Role}
    return frozenset(known[name] for name in facts.roles if name in known)
