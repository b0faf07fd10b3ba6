"""The deployments of a cluster, as people look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.policy.lifecycle.deployment_state import State
from atomr_infer.policy.lifecycle.placement import Gpus, Passed
from atomr_infer.serving.replicas.replica import TAKES_REQUESTS, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.placing.picture import Known, Picture
    from atomr_infer.serving.shared import Serving

_STATES = {
    Phase.LOADING: State.LOADING,
    Phase.RESTARTING: State.LOADING,
    Phase.SERVING: State.SERVING,
    Phase.ASLEEP: State.SERVING,
    Phase.WAKING: State.SERVING,
    Phase.FAILED: State.FAILED,
}


@attrs.frozen(kw_only=True)
class ShareStatus:
    """What one node says of its share of a deployment.

    Attributes:
        node: its name.
        state: of the share.
        replicas: that run, or are to run, there.
        serving: those whose engine runs.
        gpus: of each replica, by number.
        reason: why it does not serve; "": it does.
        in_sight: False: it is what the node said before it was lost.
    """

    node: str
    state: State
    replicas: int
    serving: int
    gpus: tuple[Gpus, ...] = ()
    reason: str = ""
    in_sight: bool = True


@attrs.frozen(kw_only=True)
class DeploymentStatus:
    """One deployment in the whole cluster.

    Attributes:
        name: its name.
        runtime: what runs it.
        serves: its public model names.
        state: of the whole.
        reason: why it does not serve as it should; "": it does.
        replicas: that are wanted, on each node or in all.
        everywhere: whether on each node.
        missing: replicas for which there is no place.
        revision: how often it was changed, and 1; 0: it is in no catalogue.
        by: the node on which it was written last.
        shares: what its nodes say, by their names.
        passed: the nodes that shall not run it, with reasons.
        conflicts: what does not agree, between nodes or with what a provider tells,
            one sentence each.
    """

    name: str
    runtime: str
    serves: tuple[str, ...]
    state: State
    reason: str = ""
    replicas: int = 1
    everywhere: bool = False
    missing: int = 0
    revision: int = 0
    by: str = ""
    shares: tuple[ShareStatus, ...] = ()
    passed: tuple[Passed, ...] = ()
    conflicts: tuple[str, ...] = ()


def cluster_status(
    picture: Picture,
    conflicts: Mapping[str, int],
    told: Callable[[str], tuple[str, ...]],
) -> tuple[DeploymentStatus, ...]:
    """Return all deployments, those that end too, by name.

    Args:
        picture: what is known.
        conflicts: how many nodes wrote another one at the same moment, by name.
        told: says which limits of one are above what its provider tells.
    """
    ending = {
        name
        for name in picture.claims.keys() - picture.catalogue.keys()
        if picture.state(name) is not State.STOPPED
    }
    return tuple(
        _status(name, picture, conflicts.get(name, 0), told(name))
        for name in sorted(picture.catalogue.keys() | ending)
    )


def _status(
    name: str, picture: Picture, concurrent: int, told: tuple[str, ...]
) -> DeploymentStatus:
    known = picture.catalogue.get(name)
    placed = picture.plan.get(name)
    status = DeploymentStatus(
        name=name,
        runtime="",
        serves=(),
        state=picture.state(name),
        reason=picture.reason(name),
        shares=tuple(_shares(name, picture)),
    )
    if placed is not None:
        status = attrs.evolve(status, missing=placed.missing, passed=placed.passed)
    if known is None:
        return status
    status = attrs.evolve(
        status,
        runtime=str(known.entry.table.get("runtime", "")),
        revision=known.entry.revision,
        by=known.entry.by,
        conflicts=(*_conflicts(name, known, picture, concurrent), *told),
    )
    if known.deployment is None:
        return status
    everywhere = known.deployment.placement.everywhere
    return attrs.evolve(
        status,
        serves=known.deployment.serves,
        replicas=known.deployment.serving.replicas,
        everywhere=known.entry.remote if everywhere is None else everywhere,
    )


def _shares(name: str, picture: Picture) -> Iterable[ShareStatus]:
    for node, claim in sorted(picture.claims.get(name, {}).items()):
        yield ShareStatus(
            node=node,
            state=claim.state,
            replicas=len(claim.gpus),
            serving=claim.serving,
            gpus=claim.gpus,
            reason=claim.reason,
            in_sight=node not in picture.away,
        )


def _conflicts(
    name: str, known: Known, picture: Picture, concurrent: int
) -> Iterable[str]:
    for node, digest in sorted(picture.declared.get(name, {}).items()):
        if digest != known.entry.digest:
            age = "older" if digest in known.entry.before else "another"
            yield f"the file of {node} has {age} content"
    if concurrent:
        others = "another node" if concurrent == 1 else f"{concurrent} other nodes"
        yield f"{others} wrote another one at the same moment; the last one counts"


def local_status(serving: Serving) -> tuple[DeploymentStatus, ...]:
    """Return the deployments of a node that has no others, by name."""
    found = sorted(serving.deployments.values(), key=lambda each: each.name)
    return tuple(_local(each, serving) for each in found)


def _local(deployment: Deployment, serving: Serving) -> DeploymentStatus:
    name = deployment.name
    replicas = serving.replicas(name)
    state = _STATES[Phase(serving.readiness().phases[name])]
    errors = [str(r.error) for r in replicas if r.error is not None]
    reason = "" if state is State.SERVING or not errors else errors[0]
    share = ShareStatus(
        node=serving.node.name,
        state=state,
        replicas=deployment.serving.replicas,
        serving=sum(replica.phase in TAKES_REQUESTS for replica in replicas),
        reason=reason,
    )
    return DeploymentStatus(
        name=name,
        runtime=deployment.runtime,
        serves=deployment.serves,
        state=state,
        reason=reason,
        replicas=deployment.serving.replicas,
        shares=(share,),
        conflicts=serving.limits.problems(name),
    )
