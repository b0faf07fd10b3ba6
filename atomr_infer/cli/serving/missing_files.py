"""Which files of models are not on this machine: asked before an engine is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.config.mistakes import Mistakes
from atomr_infer.errors import ConfigError, PluginError
from atomr_infer.policy.lifecycle.replaced import keeps_engine
from atomr_infer.runtimes.contract import Host
from atomr_infer.runtimes.files import missing_files
from atomr_infer.runtimes.loader import load_runtime

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from atomr_infer.cli.plan import ServePlan
    from atomr_infer.model.deployment import Deployment


def missing_models(
    plan: ServePlan, names: Collection[str] | None = None
) -> Iterator[str]:
    """Say which files are not here, where other machines may have them.

    Args:
        plan: what is to be served.
        names: of the deployments that are looked at; None: all.

    Raises:
        ConfigError: one is missing, and no other machine could have it; or it can be
            nowhere.  With its place, where the plan is from a file.
    """
    for index, deployment in enumerate(plan.deployments):
        if names is not None and deployment.name not in names:
            continue
        try:
            paths = missing_files(load_runtime(deployment.runtime), deployment)
        except ConfigError as error:
            told = f"deployment {deployment.name!r}: {error.message}"
            raise at_deployment(plan, index, told) from error
        for path in paths:
            told = f"deployment {deployment.name!r}: there is no {str(path)!r}"
            if not plan.has_machines:
                raise at_deployment(plan, index, told)
            yield f"{told} here; a node that loads it needs it"


def missing_to_load(plan: ServePlan, runs: Mapping[str, Deployment]) -> tuple[str, ...]:
    """Say which files are not here, of what a reload would load.

    A model that an engine has loaded may be gone: what changes with it in place asks
    for no file.

    Args:
        plan: what is to be served.
        runs: what is there now, by name.

    Raises:
        ConfigError: as :func:`missing_models`.
    """
    loaded = {
        each.name
        for each in plan.deployments
        if each.name not in runs or not _keeps_engine(runs[each.name], each)
    }
    return tuple(missing_models(plan, loaded))


def _keeps_engine(now: Deployment, wanted: Deployment) -> bool:
    try:
        is_client = load_runtime(wanted.runtime).host is Host.IN_PROCESS
    except PluginError:
        is_client = False  # it need not be installed everywhere: a local engine's
    return keeps_engine(now, wanted, is_client=is_client)


def refuse_missing_at_start(plan: ServePlan) -> None:
    """Refuse a start that would load nothing, for want of files.

    Where something else can be served it is, and what lacks a file is tried again:
    the file may come later.  A node that others may do the loading for is not looked
    at: it need not even have the runtimes.

    Raises:
        ConfigError: each deployment lacks one, or with ``plan.strict`` one does; all
            that do are told.
    """
    if plan.has_machines:
        return
    mistakes = Mistakes()
    lacking = 0
    for deployment in plan.deployments:
        try:
            tuple(missing_models(plan, (deployment.name,)))
        except ConfigError as error:
            mistakes.keep(error)
            lacking += 1
    if plan.strict or lacking == len(plan.deployments):
        mistakes.tell()


def at_deployment(
    plan: ServePlan, index: int, told: str, key: str = "model"
) -> ConfigError:
    """Return what is wrong with one of a plan's deployments, with its place."""
    if plan.origin is None:
        return ConfigError(told)
    line = plan.origin.positions.line(("deployment", index, key))
    return ConfigError(told, path=plan.origin.path, line=line)
