"""What to serve when nothing is configured: keys in the environment, or a demo.

Every installed runtime is asked, in the order of names.  One that cannot be
imported or lacks its packages must not keep the others from serving, and must
not vanish either: it is left out with a notice for the operator.
"""

from __future__ import annotations

from importlib.metadata import distributions
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError, PluginError
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.loader import (
    Installed,
    ensure_available,
    list_runtimes,
    load_runtime,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr_infer.runtimes.contract import RuntimePlugin

_FILLED = "set"
"""Any value: whether a runtime would then serve something is asked, no more."""


@attrs.frozen
class Discovery:
    """What was found without a configuration.

    Attributes:
        deployments: what can be served.
        notices: one sentence for each runtime that was left out, and why.
    """

    deployments: tuple[Deployment, ...] = ()
    notices: tuple[str, ...] = ()


def environment_deployments(
    environ: Mapping[str, str], installed: Installed = distributions
) -> Discovery:
    """Return the deployments that the environment asks for.

    A variable that is there but empty asks for nothing, and a notice says so.

    Raises:
        ConfigError: a runtime says that what the environment holds for it
            cannot work, or two plugins register the same name.
    """
    deployments: list[Deployment] = []
    notices: list[str] = []
    for plugin in _plugins(installed, notices):
        found = plugin.environment_deployments(environ)
        if found and _is_available(plugin, installed, notices):
            deployments.extend(found)
        if not found:
            notices += _empty_variables(plugin, environ)
    return Discovery(tuple(deployments), tuple(notices))


def _empty_variables(
    plugin: RuntimePlugin, environ: Mapping[str, str]
) -> Iterator[str]:
    """Say which empty variables would have a runtime serve something."""
    for name in sorted(name for name, value in environ.items() if not value.strip()):
        try:
            asked = plugin.environment_deployments({**environ, name: _FILLED})
        except ConfigError:
            continue  # it takes no such value, and nothing is lost by its absence
        if asked:
            yield (
                f"{name} is set but empty, so the {plugin.name} runtime serves "
                "nothing; give it a value, or unset it"
            )


def demo_deployment(installed: Installed = distributions) -> Discovery:
    """Return a deployment of a model that is on this machine, if there is one.

    The first runtime that has one wins; there is at most one deployment.

    Raises:
        ConfigError: two plugins register the same name.
    """
    notices: list[str] = []
    for plugin in _plugins(installed, notices):
        demo = plugin.demo_deployment()
        if demo is not None and _is_available(plugin, installed, notices):
            return Discovery((demo,), tuple(notices))
    return Discovery((), tuple(notices))


def _plugins(installed: Installed, notices: list[str]) -> Iterator[RuntimePlugin]:
    for entry in list_runtimes(installed):
        try:
            plugin = load_runtime(entry.name, installed)
        except PluginError as error:
            notices.append(str(error))
        else:
            yield plugin


def _is_available(
    plugin: RuntimePlugin, installed: Installed, notices: list[str]
) -> bool:
    try:
        ensure_available(plugin, installed)
    except PluginError as error:
        notices.append(str(error))
        return False
    return True
