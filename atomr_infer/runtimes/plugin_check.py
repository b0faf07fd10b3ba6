"""What is asked of a plugin itself, before any runner is opened.

The counterpart of :mod:`atomr_infer.runtimes.conformance` for the rules that
need no model: a plugin is cheap to import, is shaped as the contract says, and
refuses options that nothing would read.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distributions
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.conformance_case import ConformanceError
from atomr_infer.runtimes.loader import Installed, load_runtime, plugin_ref

if TYPE_CHECKING:
    from collections.abc import Collection

    from atomr_infer.runtimes.contract import RuntimePlugin

_UNKNOWN_OPTION = "conformance_no_such_option"
_IMPORT_TIMEOUT_S = 60.0

_LIST_IMPORTS = """\
import importlib, sys
importlib.import_module(sys.argv[1])
print("\\n".join({name.partition(".")[0] for name in sys.modules}))
"""


def check_plugin(
    plugin: RuntimePlugin,
    deployment: Deployment | None = None,
    *,
    heavy: Collection[str] = (),
    installed: Installed = distributions,
) -> None:
    """Hold a registered plugin against the rules that need no runner.

    Args:
        plugin: the plugin object.
        deployment: one that the plugin accepts; None: one with nothing but a
            name, for a plugin that needs no more.
        heavy: top-level modules that importing the plugin must not import.
        installed: where the plugin is registered.

    Raises:
        ConformanceError: the plugin breaks a rule.
        PluginError: it is not registered under its name, or has the wrong shape.
    """
    if load_runtime(plugin.name, installed) is not plugin:
        problem = f"another object is registered as {plugin.name!r}"
        raise ConformanceError(0, problem)
    _check_import(plugin_ref(plugin.name, installed).partition(":")[0], heavy)
    bare = Deployment(name="conformance", runtime=plugin.name)
    _check_options(plugin, bare if deployment is None else deployment)


def _check_import(module: str, heavy: Collection[str]) -> None:
    # In a fresh interpreter: in this one, a test may have imported anything.
    ran = subprocess.run(
        [sys.executable, "-c", _LIST_IMPORTS, module],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=_IMPORT_TIMEOUT_S,
        check=False,
    )
    if ran.returncode:
        problem = f"{module} cannot be imported on its own: {ran.stderr.strip()}"
        raise ConformanceError(0, problem)
    imported = sorted(set(heavy) & set(ran.stdout.split()))
    if imported:
        problem = f"importing {module} imports {', '.join(imported)}"
        raise ConformanceError(0, f"{problem}; import them in open_runner")


def _check_options(plugin: RuntimePlugin, deployment: Deployment) -> None:
    plugin.validate(deployment)
    options = {**deployment.options, _UNKNOWN_OPTION: True}
    try:
        plugin.validate(attrs.evolve(deployment, options=options))
    except ConfigError as error:
        if _UNKNOWN_OPTION in str(error):
            return
        problem = f"validate() refuses an unknown option without naming it: {error}"
        raise ConformanceError(0, problem) from error
    raise ConformanceError(0, "validate() accepts an option that does not exist")
