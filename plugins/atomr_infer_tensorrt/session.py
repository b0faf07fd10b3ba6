"""A plan as what models for texts are run by: names and shapes, arrays in and out.

A plan has a largest number of rows; what has more is run in several parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from atomr_infer_tensorrt.shapes import Shape, rows_that_fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr_infer_tensorrt.plan import Array
    from atomr_infer_tensorrt.running import PlanRuns


@attrs.frozen
class Named:
    """An input or output, as ONNX Runtime's sessions tell it.

    Attributes:
        name: as the model calls it.
        shape: -1 where a dimension varies.
    """

    name: str
    shape: Shape


class PlanSession:
    """What :class:`~atomr_infer_ort.session.Session` is for models of texts."""

    def __init__(self, runs: PlanRuns) -> None:
        self._runs = runs

    def get_inputs(self) -> list[Named]:
        """Return names and shapes."""
        return [Named(one.name, one.shape) for one in self._runs.inputs.values()]

    def get_outputs(self) -> list[Named]:
        """Return names and shapes."""
        return [Named(one.name, one.shape) for one in self._runs.outputs.values()]

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[Array]:
        """Compute, arrays in and out; each has a row for each text.

        Raises:
            InferenceError: as :meth:`~atomr_infer_tensorrt.running.PlanRuns.run`.
        """
        shapes = {name: value.shape for name, value in feeds.items()}
        rows = next(iter(shapes.values()))[0]
        step = rows_that_fit(self._runs.plan.profiles, shapes)
        made = [
            self._runs.run(
                outputs, {name: value[n : n + step] for name, value in feeds.items()}
            )
            for n in range(0, rows, step)
        ]
        return [np.concatenate(parts) for parts in zip(*made, strict=True)]
