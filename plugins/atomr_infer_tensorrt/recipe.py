"""How a plan is built of a model, and the key under which it is kept.

Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

import attrs

from atomr_infer_tensorrt.shapes import Profile

if TYPE_CHECKING:
    from atomr_infer_tensorrt.plan import Identity

_FORM = 1
"""Of what is kept: another number, and nothing that was kept is found."""


class Precision(Enum):
    """What matrix products are computed in."""

    MODEL = "model"
    FP16 = "fp16"
    INT8 = "int8"
    FP8 = "fp8"


@attrs.frozen(kw_only=True)
class Recipe:
    """How a plan is built.

    Attributes:
        profiles: the shapes that it shall take.
        precision: of matrix products.
        workspace_mib: most that a layer may take beside its inputs and outputs; None:
            what the device has.
        optimization_level: how long the library looks for fast kernels; None: its own.
    """

    profiles: Sequence[Profile]
    precision: Precision = Precision.MODEL
    workspace_mib: int | None = None
    optimization_level: int | None = None


def key_of(model_digest: str, recipe: Recipe, identity: Identity) -> str:
    """Return the name of a plan: another one where anything that it depends on differs.

    Args:
        model_digest: of the model's file and of the weights beside it.
        recipe: how it is built.
        identity: by what, and for which device.
    """
    parts = [
        _FORM,
        model_digest,
        [
            sorted(
                (name, span.least, span.usual, span.most) for name, span in p.items()
            )
            for p in recipe.profiles
        ],
        recipe.precision.value,
        recipe.workspace_mib,
        recipe.optimization_level,
        identity.library,
        identity.version,
        identity.device,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
