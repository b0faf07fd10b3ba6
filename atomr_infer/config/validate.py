"""Asking each runtime whether it could run what is configured.

Done before anything starts: a deployment whose runtime is unknown, whose
packages are missing or whose options mean nothing is refused with its line,
not met as a failed start.
"""

from __future__ import annotations

import re
from importlib.metadata import distributions
from typing import TYPE_CHECKING

from atomr_infer.config.mistakes import Mistakes
from atomr_infer.errors import ConfigError
from atomr_infer.policy.routing.composition import check_composition, check_served
from atomr_infer.policy.routing.model_table import ModelTable
from atomr_infer.policy.routing.name_overlap import may_share_a_name
from atomr_infer.runtimes.available import check_available
from atomr_infer.runtimes.contract import HasEndpoint
from atomr_infer.runtimes.loader import Installed, load_runtime
from atomr_infer.runtimes.others import Composes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from atomr_infer.config.positions import Path
    from atomr_infer.config.reader import Origin
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RuntimePlugin


def validate_deployments(
    deployments: Iterable[Deployment],
    *,
    origin: Origin | None = None,
    installed: Installed = distributions,
) -> dict[str, RuntimePlugin]:
    """Check deployments with their runtimes, and return the runtimes by name.

    Args:
        deployments: what is to be served; with ``origin``, in its order.
        origin: the file that they come from, for the lines of errors.
        installed: where plugins are looked for.

    Raises:
        PluginError: a runtime is unknown, broken or lacks packages.
        ConfigError: a runtime refuses its deployment, or a deployment falls back
            to a provider that would not know the model.
    """
    plugins: dict[str, RuntimePlugin] = {}
    deployments = tuple(deployments)
    mistakes = Mistakes()
    for index, deployment in enumerate(deployments):
        with mistakes.kept():
            _check_runtime(deployment, index, plugins, origin, installed)
    mistakes.tell()
    _check_fallback_models(deployments, plugins, origin)
    _check_composed(deployments, plugins, origin)
    return plugins


def _check_runtime(
    deployment: Deployment,
    index: int,
    plugins: dict[str, RuntimePlugin],
    origin: Origin | None,
    installed: Installed,
) -> None:
    """Ask the runtime of one deployment, which is loaded if no other one needed it."""
    try:
        plugin = plugins.get(deployment.runtime)
        if plugin is None:
            plugin = load_runtime(deployment.runtime, installed)
            plugins[deployment.runtime] = plugin
        check_available(plugin, deployment, installed)
    except ConfigError as error:
        key = "runtime" if deployment.interpreter is None else "interpreter"
        _annotate(error, deployment, origin, ("deployment", index, key))
        raise
    try:
        plugin.validate(deployment)
    except ConfigError as error:
        place = _place(error, deployment)
        _annotate(error, deployment, origin, ("deployment", index, *place))
        raise


def _check_composed(
    deployments: Sequence[Deployment],
    plugins: Mapping[str, RuntimePlugin],
    origin: Origin | None,
) -> None:
    """Refuse a deployment that asks for what nobody serves, or asks itself."""
    asks = {}
    for deployment in deployments:
        plugin = plugins[deployment.runtime]
        if isinstance(plugin, Composes):
            asks[deployment.name] = plugin.asks(deployment)
    table = ModelTable(tuple(deployments))
    for index, deployment in enumerate(deployments):
        try:
            check_served(table, asks.get(deployment.name, ()))
            if asks:
                check_composition(deployments, asks, deployment.name)
        except ConfigError as error:
            where = ("deployment", index, "options")
            _annotate(error, deployment, origin, where)
            raise


def _check_fallback_models(
    deployments: Sequence[Deployment],
    plugins: Mapping[str, RuntimePlugin],
    origin: Origin | None,
) -> None:
    """Refuse a fallback that would be asked for another provider's model."""
    by_name = {deployment.name: deployment for deployment in deployments}
    for index, deployment in enumerate(deployments):
        for position, fallback in enumerate(deployment.fallbacks):
            other = by_name.get(fallback.to)
            if other is None or fallback.model or other.model:
                continue
            if other.runtime == deployment.runtime:
                continue
            if not isinstance(plugins[other.runtime], HasEndpoint):
                continue  # what runs here has one model, whatever it is called
            if may_share_a_name(deployment.serves, other.serves):
                continue
            error = ConfigError(
                f"fallbacks: {other.name!r} would be asked for the name that the "
                f"client used, and runtime {other.runtime!r} serves none of "
                f"{', '.join(deployment.serves)}; name what it is asked for instead: "
                f'{{ to = "{other.name}", model = "..." }}'
            )
            where = ("deployment", index, "fallbacks", position)
            _annotate(error, deployment, origin, where)
            raise error


def _annotate(
    error: ConfigError, deployment: Deployment, origin: Origin | None, where: Path
) -> None:
    """Say in the error whose mistake it is, and where it stands.

    The error is changed and not wrapped: its class is part of its meaning.
    """
    owner = f"deployment {deployment.name!r}"
    if not error.message.startswith((f"{owner}: ", f"{owner}, ")):
        error.message = f"{owner}: {error.message}"
    if origin is not None and error.path is None:
        error.path = origin.path
        error.line = origin.positions.line(where)


def _place(error: ConfigError, deployment: Deployment) -> Path:
    """Return the option that a runtime's refusal speaks of.

    A runtime does not know the file, but the contract has it name the option,
    so the first option in its sentence is the place; else the deployment is.
    """
    for word in re.findall(r"[\w.-]+", error.message):
        if word in deployment.options:
            return ("options", word)
    return ()
