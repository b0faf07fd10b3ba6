"""The table ``[deployment.ray]`` to a :class:`RayHost`.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from atomr_infer.config.reader import type_name
from atomr_infer.errors import ConfigError
from atomr_infer.model.ray import RayHost
from atomr_infer.runtimes.files import expanded

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer.config.reader import TableReader

_OTHER_WORDS = {
    "gpus": "did you mean 'num_gpus'?",
    "cpus": "did you mean 'num_cpus'?",
    "python": "did you mean 'interpreter'?",
    "replicas": "it belongs under [deployment.serving]",
}


def read_ray(table: TableReader, folder: Path) -> RayHost:
    """Read where in a Ray cluster a deployment's engine runs.

    Args:
        table: the table.
        folder: what the relative path of an interpreter is relative to.

    Raises:
        ConfigError: a key is unknown, or a value is not allowed.
    """
    readers = {
        "resources": lambda: _resources(table),
        "interpreter": lambda: read_interpreter(table, folder),
    }
    return table.read(RayHost, readers, also=_OTHER_WORDS)


def _resources(table: TableReader) -> object:
    resources = table.content["resources"]
    if not isinstance(resources, Mapping):
        problem = f"resources is {type_name(resources)}, not a table of amounts"
        raise table.fail("resources", problem)
    return resources


def read_interpreter(table: TableReader, folder: Path) -> object:
    """Read the path of an interpreter, which is relative to a folder.

    Raises:
        ConfigError: it can be no path.
    """
    value = table.content["interpreter"]
    if not isinstance(value, str) or not value:
        return value  # refused with the others
    try:
        return str(folder / expanded(value))
    except ConfigError as error:
        raise table.fail("interpreter", f"interpreter: {error}") from error
