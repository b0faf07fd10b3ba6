"""Asking each runtime whether it could run what is configured.

Done before anything starts: a deployment whose runtime is unknown, whose
packages are missing or whose options mean nothing is refused with its line,
not met as a failed start.
"""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.metadata import distributions
from typing import TYPE_CHECKING

import attrs

from atomr_infer.config.mistakes import Mistakes
from atomr_infer.config.readings import Readings
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import AUTO
from atomr_infer.policy.routing.composition import check_composition, check_served
from atomr_infer.policy.routing.model_table import ModelTable
from atomr_infer.policy.routing.name_overlap import may_share_a_name
from atomr_infer.runtimes.available import check_available
from atomr_infer.runtimes.contract import HasEndpoint
from atomr_infer.runtimes.loader import (
    Installed,
    UnknownRuntimeError,
    load_runtime,
    plugin_name,
)
from atomr_infer.runtimes.others import Composes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from atomr_infer.config.positions import Path
    from atomr_infer.config.reader import Origin
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RuntimePlugin

_OF_A_CHILD = ("interpreter", "environment", "memory_limit_gib")
"""What a deployment says of a process, and a runtime without one refuses."""

_WORD = re.compile(r"[\w.-]+")


def validate_deployments(
    deployments: Iterable[Deployment],
    *,
    origin: Origin | None = None,
    installed: Installed = distributions,
) -> dict[str, RuntimePlugin]:
    """Check deployments with their runtimes, and return the runtimes by name.

    Nobody is asked of one whose model is still to tell its runtime.

    Args:
        deployments: what is to be served; with ``origin``, in its order.
        origin: the file that they come from, for the lines of errors.
        installed: where plugins are looked for.

    Raises:
        PluginError: a runtime is unknown, broken or lacks packages.
        ConfigError: a runtime refuses its deployment, or a deployment falls back
            to a provider that would not know the model.  All that is wrong is told.
    """
    mistakes = Mistakes()
    readings = Readings.of(deployments, origin)
    whole = examine_deployments(readings, mistakes, installed=installed)
    mistakes.tell()
    return {
        each.runtime: whole[each.name]
        for each in readings.values
        if each.runtime != AUTO
    }


def examine_deployments(
    readings: Readings,
    mistakes: Mistakes,
    *,
    installed: Installed = distributions,
) -> dict[str, RuntimePlugin]:
    """Check what could be read of deployments; as :func:`validate_deployments`.

    What follows from a mistake that is told is not: of a deployment with one only what
    is wrong with an option counts, and only where nothing that is left out is named.

    Args:
        readings: the deployments.
        mistakes: where what is wrong with them is kept.
        installed: where plugins are looked for.

    Returns:
        The runtimes of those with which nothing is wrong by themselves, by their names.
    """
    plugins: dict[str, RuntimePlugin | None] = {}
    whole: dict[str, RuntimePlugin] = {}
    asking: dict[str, RuntimePlugin] = {}
    for index, deployment in readings.alone:
        lacks = readings.all[index].lacks
        if "runtime" in lacks or deployment.runtime == AUTO:
            continue
        plugin = _runtime(deployment, index, plugins, readings, mistakes, installed)
        if plugin is None or "options" in lacks:
            continue
        found = tuple(_refused(plugin, deployment, index, readings))
        for error in found:
            mistakes.keep(error)
        if plugins[deployment.runtime] is None or "name" in lacks:
            continue
        asking[deployment.name] = plugin
        if not (found or lacks):
            whole[deployment.name] = plugin
    _check_fallback_models(readings, whole, mistakes)
    _check_composed(readings, asking, mistakes)
    return whole


def _runtime(
    deployment: Deployment,
    index: int,
    plugins: dict[str, RuntimePlugin | None],
    readings: Readings,
    mistakes: Mistakes,
    installed: Installed,
) -> RuntimePlugin | None:
    """Return the runtime of a deployment, or the one that was probably meant."""
    name = deployment.runtime
    error: ConfigError | None = None
    plugin: RuntimePlugin | None = plugins.get(name)
    try:
        if plugin is None:
            plugin = load_runtime(name, installed)
        check_available(plugin, deployment, installed)
        plugins[name] = plugin
    except ConfigError as refused:
        error = refused
    if error is None:
        return plugin
    plugins.setdefault(name, None)
    said = (key for key in _OF_A_CHILD if f": {key} is " in error.message)
    key = next(said, "runtime")
    _annotate(error, deployment, readings.origin, ("deployment", index, key))
    mistakes.keep(error)
    if plugin is None and isinstance(error, UnknownRuntimeError) and error.near:
        try:
            return load_runtime(error.near, installed)
        except ConfigError:
            return None  # it was not asked for
    return plugin


def _refused(
    plugin: RuntimePlugin, deployment: Deployment, index: int, readings: Readings
) -> Iterator[ConfigError]:
    """Yield what a runtime refuses of a deployment.

    A runtime tells one mistake at a time, and the option that it is in; without that
    option, it tells the next one.
    """
    # No runtime needs to know which name a deployment should have.
    lacks = readings.all[index].lacks - {"name"}
    is_whole = not lacks
    if plugin.name != plugin_name(deployment.runtime):
        is_whole, deployment = False, attrs.evolve(deployment, runtime=plugin.name)
    for number in range(len(deployment.options) + 1):
        try:
            plugin.validate(deployment)
        except ConfigError as error:
            place = _place(error, deployment)
            words = set(_WORD.findall(error.message))
            if (number == 0 and is_whole) or (place and not words & lacks):
                where = ("deployment", index, *place)
                _annotate(error, deployment, readings.origin, where)
                yield error
            if not place:
                return
            option = place[-1]
            lacks |= {str(option)}
            rest = {k: v for k, v in deployment.options.items() if k != option}
            deployment = attrs.evolve(deployment, options=rest)
        else:
            return


def _check_composed(
    readings: Readings, plugins: Mapping[str, RuntimePlugin], mistakes: Mistakes
) -> None:
    """Keep who asks for what nobody serves, or asks itself.

    Args:
        readings: all deployments.
        plugins: the runtimes of those that have one, by their names.
        mistakes: where they are kept.
    """
    asks: dict[str, tuple[str, ...]] = {}
    for _, deployment in readings:
        plugin: object = plugins.get(deployment.name)
        if isinstance(plugin, Composes):
            # With options that cannot be read, which is told, it asks nobody.
            with suppress(ConfigError):
                asks[deployment.name] = plugin.asks(deployment)
    if not asks:
        return
    table = ModelTable(readings.values)
    for index, deployment in readings:
        where = ("deployment", index, "options")
        try:
            if readings.knows_models:
                check_served(table, asks.get(deployment.name, ()))
            check_composition(readings.values, asks, deployment.name)
        except ConfigError as error:
            _annotate(error, deployment, readings.origin, where)
            mistakes.keep(error)
            # Of those who ask each other in a circle, only one tells.
            asks.pop(deployment.name, None)


def _check_fallback_models(
    readings: Readings, plugins: Mapping[str, RuntimePlugin], mistakes: Mistakes
) -> None:
    """Keep fallbacks that would be asked for another provider's model.

    Args:
        readings: all deployments.
        plugins: the runtimes of those with which nothing is wrong, by their names.
        mistakes: where they are kept.
    """
    by_name = {each.name: each for each in readings.values if each.name in plugins}
    for index, deployment in readings:
        if deployment.name not in by_name:
            continue
        for position, fallback in enumerate(deployment.fallbacks):
            other = by_name.get(fallback.to)
            if other is None or fallback.model or other.model:
                continue
            if other.runtime == deployment.runtime:
                continue
            if not isinstance(plugins[other.name], HasEndpoint):
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
            _annotate(error, deployment, readings.origin, where)
            mistakes.keep(error)


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
    for word in _WORD.findall(error.message):
        for option in (word, word.removeprefix("options.").partition(".")[0]):
            if option in deployment.options:
                return ("options", option)
    return ()
