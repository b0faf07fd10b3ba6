"""Whether a deployment's runtime can run here, as far as it is seen from here.

What is in another environment's interpreter is asked when the engine starts
(``atomr_infer.bridge.system.interpreter``): here it is only seen that it is there.
"""

from __future__ import annotations

import os
from importlib.metadata import distributions
from importlib.util import find_spec
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError, PluginError
from atomr_infer.runtimes.contract import Host
from atomr_infer.runtimes.loader import Installed, ensure_available

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RuntimePlugin


def check_available(
    plugin: RuntimePlugin, deployment: Deployment, installed: Installed = distributions
) -> None:
    """Refuse a deployment whose runtime lacks what it needs.

    Raises:
        PluginError: packages are not installed, and names the command; or it names an
            interpreter, Ray, variables or a limit for what runs in this process; or a
            limit for what runs on Ray's nodes.
        ConfigError: the interpreter that it names is not there, or of no use.
    """
    _check_child(plugin, deployment)
    if deployment.ray is not None:
        _check_ray(plugin, deployment)
        return
    python = deployment.interpreter
    if python is None:
        ensure_available(plugin, installed)
        return
    where = f"deployment {deployment.name!r}: interpreter is {python!r}"
    if plugin.host is Host.IN_PROCESS:
        raise PluginError(
            f"{where}, but the runtime {plugin.name!r} runs in this process; "
            "leave it out"
        )
    _check_program(python, where)


def _check_child(plugin: RuntimePlugin, deployment: Deployment) -> None:
    """Refuse what is said of a process that there is none of, or that is far away."""
    written = {
        "environment": bool(deployment.environment),
        "memory_limit_gib": deployment.memory_limit_gib is not None,
    }
    for key in [key for key, is_there in written.items() if is_there]:
        where = f"deployment {deployment.name!r}: {key} is written"
        if plugin.host is Host.IN_PROCESS:
            raise PluginError(
                f"{where}, but the runtime {plugin.name!r} runs in this process; "
                "leave it out"
            )
        if deployment.ray is not None and key == "memory_limit_gib":
            raise PluginError(
                f"{where}, but its engine runs on one of Ray's nodes, where nobody "
                "looks at it; leave it out"
            )


def _check_ray(plugin: RuntimePlugin, deployment: Deployment) -> None:
    # The engine and its interpreter are on Ray's nodes, which are asked at the start.
    where = f"deployment {deployment.name!r}: ray"
    if plugin.host is Host.IN_PROCESS:
        raise PluginError(
            f"{where} is written, but the runtime {plugin.name!r} runs in this "
            "process; leave it out"
        )
    assert deployment.ray is not None
    python = deployment.ray.interpreter
    if python is not None:
        _check_program(python, f"{where}: interpreter is {python!r}")
    elif find_spec("ray") is None:
        raise PluginError(
            f"{where} needs the package ray; run: pip install 'atomr-infer[ray]', or "
            "name an interpreter that has it under [deployment.ray]"
        )


def _check_program(python: str, where: str) -> None:
    if not os.access(python, os.X_OK) or os.path.isdir(python):
        raise ConfigError(f"{where}, which is not there or is no program")
