"""The environment variables that a deployment gives its engine's process.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atomr_infer.model.validation import InvalidValueError

if TYPE_CHECKING:
    import attrs

    from atomr_infer.model.placement import Placement
    from atomr_infer.model.ray import RayHost

GPUS = "CUDA_VISIBLE_DEVICES"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def as_variables(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Return a copy that nobody else changes."""
    return dict(variables)


def shown(variables: Mapping[str, str]) -> str:
    """Return a representation that has the names alone, for logs and tracebacks.

    >>> shown({"A": "secret"})
    "{'A': ...}"
    """
    return f"{{{', '.join(f'{name!r}: ...' for name in variables)}}}"


def are_variables(_: object, field: attrs.Attribute[Any], variables: object) -> None:
    """Require names of variables, and texts.

    A value is not shown: people write keys there, though they should not.
    """
    assert isinstance(variables, Mapping), "converted"
    for name, value in variables.items():
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            problem = "is no name of a variable; use letters, digits and _"
            raise InvalidValueError(field.name, name, problem)
        if not isinstance(value, str):
            problem = 'is not a string; write it as NAME = "value"'
            raise InvalidValueError(field.name, name, problem)
        if not _is_told(value):
            problem = "has a value that no variable can have: a NUL, or no UTF-8"
            raise InvalidValueError(field.name, name, problem)


def _is_told(value: str) -> bool:
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def refuse_gpus_of_both(
    variables: Mapping[str, str], placement: Placement, ray: RayHost | None
) -> None:
    """Refuse GPUs that are named by hand where they are given by a plan as well.

    Raises:
        InvalidValueError: they are.
    """
    key = "placement.gpus" if placement.gpus else "ray.num_gpus"
    given = placement.gpus if ray is None else placement.gpus or ray.num_gpus
    if given and GPUS in variables:
        problem = f"is what {key} decides; leave one of them out"
        raise InvalidValueError("environment", GPUS, problem)
