"""Whether a deployment's runtime can run here, as far as it is seen from here.

What is in another environment's interpreter is asked when the engine starts
(``atomr_infer.bridge.interpreter``): here it is only seen that it is there.
"""

from __future__ import annotations

import os
from importlib.metadata import distributions
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
        PluginError: packages are not installed; names the command.
        ConfigError: the interpreter that it names is not there, or of no use.
    """
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
    if not os.access(python, os.X_OK) or os.path.isdir(python):
        raise ConfigError(f"{where}, which is not there or is no program")
