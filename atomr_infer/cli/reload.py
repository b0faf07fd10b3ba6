"""What a configuration that was changed changes in a server that runs.

A deployment that is new is served, and one that was changed in what is looked up for
each request is changed.  Engines, keys and connections are left alone, since requests
would end with them: what was changed in more or taken out, and the gateway's own
table, take effect with a restart, and the operator is told so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.cli.banner import print_notice
from atomr_infer.errors import ConfigError, InferenceError
from atomr_infer.model.deployment import Deployment, changes_while_serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.cli.plan import ServePlan
    from atomr_infer.cluster import Cluster


@attrs.frozen
class Changes:
    """What is different from what runs.

    Attributes:
        new: the deployments that do not run yet.
        changed: those that can become what they shall be while they serve.
        later: what takes effect with a restart, each in a few words.
    """

    new: tuple[Deployment, ...]
    changed: tuple[Deployment, ...]
    later: tuple[str, ...]


def changes(running: ServePlan, wanted: ServePlan) -> Changes:
    """Compare what runs with what the configuration says now."""
    runs = {deployment.name: deployment for deployment in running.deployments}
    says = {deployment.name: deployment for deployment in wanted.deployments}
    differ = [wanted for name, wanted in says.items() if runs.get(name) != wanted]
    new = tuple(each for each in differ if each.name not in runs)
    other = [each for each in differ if each.name in runs]
    changed = [e for e in other if changes_while_serving(runs[e.name], e)]
    later = [f"the changed deployment {e.name!r}" for e in other if e not in changed]
    later += [f"the end of {name!r}" for name in runs if name not in says]
    ours = (running.gateway, running.keys, running.admin_key)
    if ours != (wanted.gateway, wanted.keys, wanted.admin_key):
        later.append("[gateway]")
    return Changes(new, tuple(changed), tuple(later))


async def take_changes(
    cluster: Cluster, running: ServePlan, plan: Callable[[], ServePlan], cause: str
) -> ServePlan:
    """Read the configuration anew, and serve what is new in it.

    Args:
        cluster: what serves.
        running: what it serves.
        plan: reads the configuration.
        cause: why, for what the operator is told.

    Returns:
        What is served now.
    """
    try:
        wanted = plan()
        found = changes(running, wanted)
    except ConfigError as error:
        print_notice(f"{cause}: the configuration is not taken: {error}")
        return running
    if wanted.teams != running.teams:
        cluster.key_ring.take_teams(wanted.teams)
        print_notice(f"{cause}: the teams are changed")
        running = attrs.evolve(running, teams=wanted.teams)
    if wanted.budgets != running.budgets:
        cluster.budgets.take(wanted.budgets)
        print_notice(f"{cause}: the budgets of teams and keys are changed")
        running = attrs.evolve(running, budgets=wanted.budgets)
    names = frozenset(deployment.name for deployment in found.new)
    for deployment in found.new:
        try:
            await cluster.deploy(deployment, expected=names)
        except (ConfigError, InferenceError) as error:
            print_notice(f"{cause}: {deployment.name} cannot be served: {error}")
            continue
        print_notice(f"{cause}: {deployment.name} is served now")
        deployments = (*running.deployments, deployment)
        running = attrs.evolve(running, deployments=deployments)
    for deployment in found.changed:
        try:
            await cluster.change(deployment)
        except (ConfigError, InferenceError) as error:
            print_notice(f"{cause}: {deployment.name} is not changed: {error}")
            continue
        print_notice(f"{cause}: {deployment.name} is changed")
        running = _with(running, deployment)
    if found.later:
        told = ", ".join(found.later)
        print_notice(f"{cause}: takes effect with a restart: {told}")
    return running


def _with(running: ServePlan, changed: Deployment) -> ServePlan:
    deployments = tuple(
        changed if each.name == changed.name else each for each in running.deployments
    )
    return attrs.evolve(running, deployments=deployments)
