"""What the decorator of an actor says in the source, before any of it runs.

Pure.
"""

from __future__ import annotations

import ast
import copy
import math
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

_FOR_LOOP = "inference_actor"
_FOR_GPU = "gpu_actor"


def without_mark(
    who: str, statement: ast.stmt | None, deployment: Deployment
) -> ast.stmt | None:
    """Return a definition as it is without the decorator of a ``gpu_actor``.

    Args:
        who: what errors call it.
        statement: the definition; None: it is not known.
        deployment: its deployment.

    Raises:
        ConfigError: the deployment has not the GPUs that it needs, or it is an actor
            that this runtime does not run.
    """
    if not isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return statement
    marks = {_name(each): each for each in statement.decorator_list}
    if _FOR_LOOP in marks:
        raise ConfigError(
            f"{who} is an inference_actor, which asks others and runs beside them; "
            f"write actor:{who}"
        )
    mark = marks.get(_FOR_GPU)
    if mark is None or len(marks) > 1:
        return statement
    _check_gpus(who, mark, deployment)
    bare = copy.copy(statement)
    bare.decorator_list = []
    return bare


def _name(decorator: ast.expr) -> str:
    """Return the last part of a decorator's name."""
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    if isinstance(decorator, ast.Attribute):
        return decorator.attr
    return decorator.id if isinstance(decorator, ast.Name) else ""


def _check_gpus(who: str, mark: ast.expr, deployment: Deployment) -> None:
    needed, ray = _devices(mark), deployment.ray
    if ray is None:
        has: float = deployment.placement.gpus
        remedy = f"gpus = {needed} under [deployment.placement]"
    else:
        has, remedy = ray.num_gpus, f"num_gpus = {needed} under [deployment.ray]"
    if needed is not None and needed > math.ceil(has):
        raise ConfigError(
            f"{who} needs {needed} GPU{'' if needed == 1 else 's'}, and its deployment "
            f"takes {has:g}; write {remedy}"
        )


def _devices(mark: ast.expr) -> int | None:
    """Return how many GPUs a decorator asks for; None: only a run tells."""
    said = mark.keywords if isinstance(mark, ast.Call) else []
    for keyword in said:
        if keyword.arg == "devices":
            value = keyword.value
            number = value.value if isinstance(value, ast.Constant) else None
            return number if isinstance(number, int) else None
        if keyword.arg is None:
            return None  # **more, which may say it
    return 1
