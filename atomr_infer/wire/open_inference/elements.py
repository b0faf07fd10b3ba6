"""A tensor's elements as JSON, and back.

What JSON has no number for, infinities and what is no number, is null in an answer;
the binary form has all of it.

Pure.
"""

from __future__ import annotations

import math
import struct
from math import prod
from typing import TYPE_CHECKING, Any

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.tensors import Datatype, joined, shown
from atomr_infer.wire.fields import decode, invalid

if TYPE_CHECKING:
    from msgspec import Raw

    from atomr_infer.model.tensors import Tensor

_FLOATS = frozenset({Datatype.FP32, Datatype.FP64})

# By what the elements are: what JSON is read as, and what an error calls it.
_READ: dict[Datatype, tuple[type, str]] = {
    Datatype.BOOL: (bool, "true and false"),
    Datatype.BYTES: (str, "strings"),
    **dict.fromkeys(_FLOATS, (float, "numbers")),
}
_WHOLE: tuple[type, str] = (int, "whole numbers")

MAX_DIMENSIONS = 32
"""More than any engine has."""


def of_json(param: str, raw: Raw, kind: Datatype, shape: tuple[int, ...]) -> bytes:
    """Return the bytes of elements that are written out.

    Args:
        param: where they stand in the request.
        raw: a flat list, or lists in lists as the shape says.
        kind: what they are.
        shape: the tensor's.

    Raises:
        InvalidRequestError: they are of another kind, or not as many.
    """
    if kind in (Datatype.FP16, Datatype.BF16):
        raise invalid(param, f"is {kind.value}, which only the binary form has")
    read, called = _READ.get(kind, _WHOLE)
    nested = bytes(raw).lstrip()[1:].lstrip().startswith(b"[")
    hint: Any = list[read]  # type: ignore[valid-type] # made at run time
    for _ in shape[1:] if nested else ():
        hint = list[hint]
    values = decode(param, raw, hint, wanted=f"a list of {called}, or lists of them")
    if nested:
        values = _flat(param, values, shape)
    if len(values) != prod(shape):
        problem = f"has {len(values)} elements; the shape {shown(shape)} has"
        raise invalid(param, f"{problem} {prod(shape)}")
    return _packed(param, values, kind)


def _flat(param: str, values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    level = [values]
    for depth, size in enumerate(shape):
        if any(len(each) != size for each in level):
            problem = f"has lists of another length than {size} at depth {depth}"
            raise invalid(param, f"{problem}; the shape is {shown(shape)}")
        level = [inner for each in level for inner in each]
    return level


def _packed(param: str, values: list[Any], kind: Datatype) -> bytes:
    if kind is Datatype.BYTES:
        return joined(values)
    try:
        return struct.pack(f"<{len(values)}{kind.code}", *values)
    except (struct.error, OverflowError) as error:
        raise invalid(param, f"holds what is no {kind.value}: {error}") from error


def as_json(tensor: Tensor) -> list[Any]:
    """Return a tensor's elements as JSON has them, in one list.

    Raises:
        InvalidRequestError: JSON has no form for them.
    """
    kind = tensor.datatype
    if kind in (Datatype.FP16, Datatype.BF16):
        raise _only_binary(tensor, kind.value)
    values = tensor.values()
    if kind is Datatype.BYTES:
        try:
            return [value.decode() for value in values]
        except UnicodeDecodeError as error:
            raise _only_binary(tensor, "bytes that are no text") from error
    if kind in _FLOATS:
        return [value if math.isfinite(value) else None for value in values]
    return values


def _only_binary(tensor: Tensor, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the output {tensor.name!r} is {what}, which JSON does not have: ask for it "
        "with the parameter binary_data",
        param="outputs",
    )
