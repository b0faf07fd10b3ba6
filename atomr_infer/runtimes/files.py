"""Which files a deployment reads on the machine that loads it.

An engine that meets a missing file says so, but only once it starts.  ``check`` asks
before that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from atomr_infer.runtimes.hub_files import PREFIX as _HUB
from atomr_infer.runtimes.packaged import PREFIX as _PACKAGE

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RuntimePlugin


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
    """Return those of a deployment's files that are not on this machine."""
    if not isinstance(plugin, ReadsFiles):
        return ()
    return tuple(path for path in plugin.files(deployment) if not path.exists())


def local_path(source: str) -> Path | None:
    """Return the path that a model's source is; None: it is elsewhere.

    >>> local_path("/models/qwen.gguf")
    PosixPath('/models/qwen.gguf')
    >>> local_path("hf:Qwen/Qwen3-0.6B") is None
    True
    """
    if source.startswith((_HUB, _PACKAGE)):
        return None
    return Path(source).expanduser()
