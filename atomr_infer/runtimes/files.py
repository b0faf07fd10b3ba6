"""Which files a deployment reads on the machine that loads it.

An engine that meets a missing file says so, but only once it starts.  ``check`` asks
before that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.hub.names import PREFIX as _HUB
from atomr_infer.runtimes.packaged import PREFIX as _PACKAGE

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RuntimePlugin

_MAX_NAME_BYTES = 255
_SHOWN = 80


@runtime_checkable
class ReadsFiles(Protocol):
    """A plugin that can say which files a deployment reads, without reading them."""

    def files(self, deployment: Deployment) -> tuple[Path, ...]:
        """Return the files and directories that must be there before it is loaded.

        The deployment has been validated.  What the engine fetches, keeps in a cache
        or finds in a package is not among them.
        """
        ...


def missing_files(plugin: RuntimePlugin, deployment: Deployment) -> tuple[Path, ...]:
    """Return those of a deployment's files that are not on this machine.

    Those of an engine in a Ray cluster are on Ray's nodes.

    Raises:
        ConfigError: one cannot be looked for.
    """
    if deployment.ray is not None or not isinstance(plugin, ReadsFiles):
        return ()
    return tuple(path for path in plugin.files(deployment) if not _exists(path))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise cannot_look(path, error) from error


def cannot_look(path: Path, error: OSError) -> ConfigError:
    """Return what is said of a path that the system does not look for."""
    return ConfigError(f"{_shown(path)} cannot be looked for: {error.strerror}")


def expanded(path: str | Path) -> Path:
    """Return a path of the configuration, with the home that its ``~`` stands for.

    Raises:
        ConfigError: there is no such home, or no file can be called so.

    >>> expanded("/models/qwen.gguf")
    PosixPath('/models/qwen.gguf')
    """
    try:
        found = Path(path).expanduser()
    except RuntimeError as error:
        problem = f"there is no home for {_shown(path)}; write the whole path"
        raise ConfigError(problem) from error
    if any(len(os.fsencode(name)) > _MAX_NAME_BYTES for name in found.parts):
        raise ConfigError(
            f"{_shown(path)} has a name of more than {_MAX_NAME_BYTES} bytes in it; "
            "no file is called so"
        )
    return found


def _shown(path: str | Path) -> str:
    text = str(path)
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


def local_path(source: str) -> Path | None:
    """Return the path that a model's source is; None: it is elsewhere.

    Raises:
        ConfigError: there is no such home, or no file can be called so.

    >>> local_path("/models/qwen.gguf")
    PosixPath('/models/qwen.gguf')
    >>> local_path("hf:Qwen/Qwen3-0.6B") is None
    True
    """
    if source.startswith((_HUB, _PACKAGE)):
        return None
    return expanded(source)
