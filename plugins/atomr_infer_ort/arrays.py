"""Tensors as arrays of ONNX Runtime, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from atomr_infer.errors import (
    EngineStartError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from atomr_infer.model.tensors import (
    ANY_SIZE,
    Datatype,
    Signature,
    Tensor,
    TensorSpec,
    joined,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from atomr_infer_ort.session import Session

Array = np.ndarray[Any, np.dtype[Any]]

_KINDS = {
    "tensor(bool)": Datatype.BOOL,
    "tensor(uint8)": Datatype.UINT8,
    "tensor(uint16)": Datatype.UINT16,
    "tensor(uint32)": Datatype.UINT32,
    "tensor(uint64)": Datatype.UINT64,
    "tensor(int8)": Datatype.INT8,
    "tensor(int16)": Datatype.INT16,
    "tensor(int32)": Datatype.INT32,
    "tensor(int64)": Datatype.INT64,
    "tensor(float16)": Datatype.FP16,
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(string)": Datatype.BYTES,
}


_TABLES = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")
"""What a classifier of scikit-learn's gives where it was converted without
``zipmap=False``: for each row, the probability of each class."""


def signature_of(session: Session) -> Signature:
    """Return what a model takes and gives.

    Raises:
        EngineStartError: an input or output is no tensor, or of a kind that Python
            has no array for.
    """
    return Signature(
        inputs=tuple(_specs(session.get_inputs())),
        outputs=tuple(_specs(session.get_outputs())),
    )


def _specs(told: Iterable[Any]) -> Iterable[TensorSpec]:
    for one in told:
        if one.type in _TABLES:
            yield TensorSpec(one.name, Datatype.FP32, (ANY_SIZE, ANY_SIZE))
            continue
        kind = _KINDS.get(one.type)
        if kind is None:
            raise EngineStartError(
                f"{one.name!r} of the model is {one.type}, which is not served; known: "
                f"{', '.join(_KINDS)}"
            )
        # A size with a name, or without one, is as it comes.
        shape = (size if isinstance(size, int) else ANY_SIZE for size in one.shape)
        yield TensorSpec(one.name, kind, tuple(shape))


def table_of(rows: Sequence[Mapping[Any, float]]) -> Array:
    """Return the probabilities of classes as rows, the classes in their own order.

    It is the order in which scikit-learn has them, and a converter's ``zipmap=False``.

    >>> table_of([{2: 0.25, 1: 0.75}]).tolist()
    [[0.75, 0.25]]
    """
    classes = sorted(rows[0]) if rows else []
    table = [[row[one] for one in classes] for row in rows]
    return np.array(table, np.float32).reshape(len(rows), len(classes))


def array_of(tensor: Tensor) -> Array:
    """Return a tensor as an array.

    Raises:
        InvalidRequestError: a text is not Unicode.
    """
    if tensor.datatype is Datatype.BYTES:
        try:
            words = [word.decode() for word in texts(tensor.data)]
        except UnicodeDecodeError as error:
            raise InvalidRequestError(
                f"{tensor.name!r} holds bytes that are no UTF-8",
                param=f"inputs[{tensor.name}]",
            ) from error
        return np.array(words, dtype=object).reshape(tensor.shape)
    flat = np.frombuffer(tensor.data, dtype=f"<{tensor.datatype.code}")
    return flat.reshape(tensor.shape)


def tensor_of(name: str, array: Array) -> Tensor:
    """Return an array as a tensor.

    Raises:
        UnsupportedFeatureError: it is of a kind that tensors do not have.
    """
    if array.dtype == object:
        words = joined(str(word) for word in array.ravel())
        return Tensor(name, Datatype.BYTES, array.shape, words)
    try:
        return Tensor.of(name, array)
    except ValueError as error:
        raise UnsupportedFeatureError(str(error), param=f"outputs[{name}]") from error
