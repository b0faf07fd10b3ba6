"""The runner of a plan that takes tensors.

As many runs are under way as there are contexts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import trio

from atomr_infer.errors import EngineCrashedError, InferenceError
from atomr_infer.model.tensors import Signature, Tensor, TensorSpec
from atomr_infer.runtimes.tensor_runner import TensorQueue
from atomr_infer_tensorrt.shapes import choose_profile, takes_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.tensors import InferRequest
    from atomr_infer.runtimes.tensor_runner import Asked
    from atomr_infer_tensorrt.plan import Array, Binding
    from atomr_infer_tensorrt.running import PlanRuns
    from atomr_infer_tensorrt.shapes import Shape


class PlanRunner(TensorQueue):
    """A :class:`~atomr_infer.runtimes.contract.TensorRunner` on a plan.

    Args:
        runs: the plan.
        lanes: most runs at once.
        joins: whether requests share runs, where the plan's rows vary.
    """

    def __init__(self, runs: PlanRuns, *, lanes: int, joins: bool) -> None:
        signature = Signature(
            inputs=tuple(map(_spec, runs.inputs.values())),
            outputs=tuple(map(_spec, runs.outputs.values())),
        )
        super().__init__(signature, lanes=lanes, joins=joins)
        self._runs = runs

    async def run(self) -> None:
        """Run what waits, until cancelled or broken; free the plan.

        Cancellation: at the end of the runs that are under way.
        """
        try:
            await super().run()
        finally:
            # A broken context gives nothing back; the process's end does.
            if self.crash is None:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._runs.close)

    def _feeds(self, request: InferRequest) -> dict[str, Array]:
        feeds = {
            tensor.name: np.frombuffer(
                tensor.data, self._runs.inputs[tensor.name].dtype
            ).reshape(tensor.shape)
            for tensor in request.inputs
        }
        choose_profile(self._runs.plan.profiles, _shapes(feeds))
        return feeds

    def _tensor(self, name: str, made: Array) -> Tensor:
        kind = self._runs.outputs[name].datatype
        return Tensor(name, kind, tuple(made.shape), made.tobytes())

    def _takes(self, first: Asked, rows: int) -> bool:
        return takes_rows(self._runs.plan.profiles, _shapes(first.feeds), rows)

    def _made(self, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
        return self._runs.run(names, feeds)

    def _told(self, error: Exception) -> InferenceError:
        if isinstance(error, InferenceError):
            return error
        return EngineCrashedError(f"TensorRT failed: {type(error).__name__}: {error}")


def _shapes(feeds: Mapping[str, Array]) -> dict[str, Shape]:
    return {name: tuple(feed.shape) for name, feed in feeds.items()}


def _spec(one: Binding) -> TensorSpec:
    return TensorSpec(one.name, one.datatype, one.shape)
