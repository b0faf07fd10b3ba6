"""The environment variables of a child interpreter.

They are this process's, with what its deployment says and the GPUs that it was given.
What tells this interpreter where its packages are is not for one of another
environment: its engine would import our packages, of versions that it excludes.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GPUS = "CUDA_VISIBLE_DEVICES"
"""Where CUDA reads which GPUs a process may see."""

_PATH = "PYTHONPATH"
_OUR_PYTHONS = (_PATH, "PYTHONHOME", "PYTHONPLATLIBDIR", "__PYVENV_LAUNCHER__")
"""What says where an interpreter's own packages and its library are."""


def child_environment(
    python: str,
    *,
    own: Mapping[str, str],
    python_path: Sequence[str] = (),
    gpus: Sequence[str] = (),
) -> dict[str, str]:
    """Return the environment variables of a child.

    Args:
        python: its interpreter's path.
        own: those that its deployment says, which go before this process's.
        python_path: folders that come first on its import path.
        gpus: those that it sees, by their UUIDs; none: those that this process sees.
    """
    environment = dict(os.environ)
    if not is_ours(python):
        for name in _OUR_PYTHONS:
            environment.pop(name, None)
    environment |= own
    if gpus:
        environment[GPUS] = ",".join(gpus)
    inherited = environment.get(_PATH)
    folders = [*python_path, *([inherited] if inherited else [])]
    if folders:
        environment[_PATH] = os.pathsep.join(folders)
    return environment


def is_ours(python: str) -> bool:
    """Whether an interpreter is of this process's own environment.

    Its links count, which tell an environment that was made of it from it.

    >>> is_ours(sys.executable), is_ours("/opt/vllm/bin/python")
    (True, False)
    """
    ours, theirs = map(os.path.abspath, (sys.executable, python))
    if ours == theirs:
        return True
    beside = os.path.dirname(ours) == os.path.dirname(theirs)
    return beside and os.path.realpath(ours) == os.path.realpath(theirs)
