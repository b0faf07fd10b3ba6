"""A tensor's elements as JSON, and back.

What JSON has no number for, infinities and what is no number, is null in an answer;
the binary form has all of it.

Long lists of numbers are read and written in pieces: as Python's objects all at once
they would be twenty times as large as they are.

Pure.
"""

from __future__ import annotations

import math
import re
import struct
from math import prod
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.tensors import Datatype, joined, shown
from atomr_infer.wire.fields import decode, invalid
from atomr_infer.wire.open_inference.pieces import PIECE_BYTES, Span, cut

if TYPE_CHECKING:
    from collections.abc import Iterator

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

_NESTED = re.compile(rb"[ \t\r\n]*\[[ \t\r\n]*\[")
_AT_ONCE = 64 * 1024
_ENCODER = msgspec.json.Encoder()


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
    text = bytes(raw)
    nested = _NESTED.match(text) is not None
    reader = _Reader(param, text, kind, shape)
    reader.read(Span(0, len(text)), _sizes(shape) if nested else (prod(shape),))
    if reader.count != prod(shape):
        problem = f"has {reader.count} elements; the shape {shown(shape)} has"
        raise invalid(param, f"{problem} {prod(shape)}")
    return bytes(reader.data)


def _sizes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return how long lists in lists are, as deep as there are any."""
    if 0 in shape:
        return shape[: shape.index(0) + 1]
    return shape or (1,)


class _Reader:
    """Reads the elements of one tensor, some at a time.

    Attributes:
        data: those that were read, as bytes.
        count: how many were there; of those beyond the shape nothing is kept.
    """

    def __init__(
        self, param: str, text: bytes, kind: Datatype, shape: tuple[int, ...]
    ) -> None:
        self.data = bytearray()
        self.count = 0
        self._param = param
        self._text = text
        self._kind = kind
        self._shape = shape
        self._depth = len(_sizes(shape))
        self._most = prod(shape)

    def read(self, whole: Span, sizes: tuple[int, ...]) -> None:
        """Read a list.

        Args:
            whole: where it is.
            sizes: how long it is, and the lists in it; one size: it is flat.

        Raises:
            InvalidRequestError: it holds something else, or lists of another length.
        """
        found = 0
        # A text may hold a comma, or a bracket.
        if self._kind is Datatype.BYTES or whole.end - whole.begin <= PIECE_BYTES:
            found = self._take(self._text[whole.begin : whole.end], sizes)
        else:
            for span in cut(self._text, whole, len(sizes)):
                if span.is_one and len(sizes) > 1:
                    self.read(span, sizes[1:])
                    found += 1
                else:
                    part = b"[%b]" % self._text[span.begin : span.end]
                    found += self._take(part, sizes)
        # Of a flat list, all elements are counted in the end.
        if found != sizes[0] and sizes != (self._most,):
            raise self._uneven(sizes[0], self._depth - len(sizes))

    def _take(self, text: bytes, sizes: tuple[int, ...]) -> int:
        """Take a list, and return how long it is."""
        read, called = _READ.get(self._kind, _WHOLE)
        hint: Any = list[read]  # type: ignore[valid-type] # made at run time
        for _ in sizes[1:]:
            hint = list[hint]
        wanted = f"a list of {called}, or lists of them"
        values = decode(self._param, text, hint, wanted=wanted)
        found = len(values)
        first = self._depth - len(sizes) + 1
        for depth, size in enumerate(sizes[1:], start=first):
            if any(len(each) != size for each in values):
                raise self._uneven(size, depth)
            values = [inner for each in values for inner in each]
        self.count += len(values)
        if self.count <= self._most:
            self.data += _packed(self._param, values, self._kind)
        return found

    def _uneven(self, size: int, depth: int) -> InvalidRequestError:
        problem = f"has lists of another length than {size} at depth {depth}"
        return invalid(self._param, f"{problem}; the shape is {shown(self._shape)}")


def _packed(param: str, values: list[Any], kind: Datatype) -> bytes:
    if kind is Datatype.BYTES:
        return joined(values)
    try:
        return struct.pack(f"<{len(values)}{kind.code}", *values)
    except (struct.error, OverflowError) as error:
        raise invalid(param, f"holds what is no {kind.value}: {error}") from error


def as_json(tensor: Tensor) -> list[str] | Raw:
    """Return a tensor's elements as JSON has them, in one list.

    Raises:
        InvalidRequestError: JSON has no form for them.
    """
    kind = tensor.datatype
    if kind in (Datatype.FP16, Datatype.BF16):
        raise _only_binary(tensor, kind.value)
    if kind is Datatype.BYTES:
        try:
            return [value.decode() for value in tensor.values()]
        except UnicodeDecodeError as error:
            raise _only_binary(tensor, "bytes that are no text") from error
    parts = (_ENCODER.encode(values)[1:-1] for values in _some(tensor))
    return Raw(b"[%b]" % b",".join(parts))


def _some(tensor: Tensor) -> Iterator[list[Any]]:
    """Give a tensor's numbers, some thousands at a time: each is an object then."""
    kind = tensor.datatype
    size = kind.size_bytes
    assert size is not None, "texts are no numbers"
    for at in range(0, len(tensor.data), _AT_ONCE * size):
        part = tensor.data[at : at + _AT_ONCE * size]
        values = struct.unpack(f"<{len(part) // size}{kind.code}", part)
        if kind in _FLOATS:
            yield [value if math.isfinite(value) else None for value in values]
        else:
            yield list(values)


def _only_binary(tensor: Tensor, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the output {tensor.name!r} is {what}, which JSON does not have: ask for it "
        "with the parameter binary_data",
        param="outputs",
    )
