"""Models that take tensors: any ONNX file, as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.errors import InferenceError, InvalidRequestError
from atomr_infer.runtimes.tensor_runner import TensorQueue
from atomr_infer_ort.arrays import Array, array_of, signature_of, table_of, tensor_of
from atomr_infer_ort.faults import first_line, is_out_of_memory, step_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr_infer.model.tensors import InferRequest, Tensor
    from atomr_infer.runtimes.tensor_runner import Asked
    from atomr_infer_ort.session import Session

MAX_JOINED_ROWS = 256
"""Of a run that several requests share; one request may have more."""

# What ONNX Runtime says of values that a model cannot compute with.  On a GPU the
# other errors may have broken its context.
_CLIENTS_FAULT = ("InvalidArgument", "NotImplemented")
_ON_A_CPU = (*_CLIENTS_FAULT, "Fail", "RuntimeException")


class OrtTensorRunner(TensorQueue):
    """A :class:`~atomr_infer.runtimes.contract.TensorRunner` on ONNX Runtime.

    Args:
        session: the model.
        joins: whether requests share runs, where all of the model's tensors have
            rows.
        on_cpu: whether a run that fails leaves the session as it was.
    """

    def __init__(
        self, session: Session, *, joins: bool = False, on_cpu: bool = True
    ) -> None:
        super().__init__(signature_of(session), lanes=1, joins=joins)
        self._recovers_from = _ON_A_CPU if on_cpu else _CLIENTS_FAULT
        self._session = session

    def _feeds(self, request: InferRequest) -> dict[str, Array]:
        return {tensor.name: array_of(tensor) for tensor in request.inputs}

    def _tensor(self, name: str, made: Array) -> Tensor:
        return tensor_of(name, made)

    def _takes(self, first: Asked, rows: int) -> bool:
        return rows <= MAX_JOINED_ROWS

    def _made(self, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
        made = self._session.run(names, dict(feeds))
        return [table_of(one) if isinstance(one, list) else one for one in made]

    def _told(self, error: Exception) -> InferenceError:
        return run_error(error, self._recovers_from)


def run_error(error: Exception, recovers_from: Sequence[str]) -> InferenceError:
    """Return why a run failed.

    Args:
        error: what ONNX Runtime raised.
        recovers_from: names of errors behind which it goes on.
    """
    if type(error).__name__ in recovers_from and not is_out_of_memory(error):
        problem = f"the model cannot compute with this: {first_line(error)}"
        return InvalidRequestError(problem, param="inputs")
    return step_error(error)
