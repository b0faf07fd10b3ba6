"""Write answers of the Open Inference Protocol.

Pure.

Source: Open Inference Protocol, "Inference", "Model Metadata"; Triton Inference
Server, "Binary Tensor Data Extension".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from atomr_infer.wire.ingress import ErrorAnswer
from atomr_infer.wire.open_inference.elements import as_json
from atomr_infer.wire.open_inference.request import JSON_LENGTH
from atomr_infer.wire.openai import error_body

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.tensors import Inferred, Signature, Tensor, TensorSpec
    from atomr_infer.wire.open_inference.request import InferAsked

VERSION = "1"
"""Of every model: a deployment is changed, and has no numbered versions."""

_BINARY = b"application/octet-stream"


def inferred(
    asked: InferAsked, found: Inferred, model: str
) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """Return an answer's body, and its headers where it is not JSON alone.

    Raises:
        InvalidRequestError: JSON has no form for an output that is wanted so.
    """
    tail = [each.data for each in found.outputs if asked.is_binary(each.name)]
    head = msgspec.json.encode(
        {
            "model_name": model,
            "model_version": VERSION,
            "id": asked.id or asked.request.request_id,
            "outputs": [_output(asked, each) for each in found.outputs],
        }
    )
    if not tail:
        return head, ()
    length = (JSON_LENGTH.encode(), b"%d" % len(head))
    return b"".join((head, *tail)), ((b"content-type", _BINARY), length)


def _output(asked: InferAsked, tensor: Tensor) -> dict[str, Any]:
    members: dict[str, Any] = {
        "name": tensor.name,
        "shape": tensor.shape,
        "datatype": tensor.datatype.value,
    }
    if asked.is_binary(tensor.name):
        members["parameters"] = {"binary_data_size": len(tensor.data)}
    else:
        members["data"] = as_json(tensor)
    return members


def described(name: str, signature: Signature, platform: str) -> bytes:
    """Return what a model takes and gives.

    Args:
        name: its public name.
        signature: what is told.
        platform: the runtime.
    """
    return msgspec.json.encode(
        {
            "name": name,
            "versions": [VERSION],
            "platform": platform,
            "inputs": _specs(signature.inputs),
            "outputs": _specs(signature.outputs),
        }
    )


def _specs(specs: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    return [
        {"name": each.name, "datatype": each.datatype.value, "shape": each.shape}
        for each in specs
    ]


def ready(name: str) -> bytes:
    """Return that a model is ready."""
    return msgspec.json.encode({"name": name, "ready": True})


class OpenInferenceErrors:
    """How the protocol says no: a sentence, and the status of OpenAI's routes."""

    def refuse(self, error: InferenceError, request_id: str) -> ErrorAnswer:
        """Return the answer for an error of inference."""
        told = error_body.answer(error)
        return ErrorAnswer(told.status, _sentence(error.message), told.headers)

    def plain(
        self, status: int, message: str, request_id: str, *, code: str | None = None
    ) -> ErrorAnswer:
        """Return the answer for what HTTP itself refuses."""
        return ErrorAnswer(status, _sentence(message))


def _sentence(message: str) -> bytes:
    return msgspec.json.encode({"error": message})
