"""Tensors in, tensors out: what is asked of a model that is neither chat nor vectors.

A tensor is its bytes: row-major, little-endian, as numpy, ONNX Runtime and TensorRT
have them.  Texts (``BYTES``) stand one behind the other, each with its length in four
bytes before it.

Pure.

Source: Open Inference Protocol, "Tensor Data Types"; Triton Inference Server, "Binary
Tensor Data Extension".
"""

from __future__ import annotations

import struct
from enum import Enum
from math import prod
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.asker import Asker
from atomr_infer.model.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Datatype(Enum):
    """What a tensor's elements are."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @property
    def size_bytes(self) -> int | None:
        """Of one element; None: each has its own.

        >>> Datatype.FP16.size_bytes, Datatype.INT64.size_bytes
        (2, 8)
        """
        return _SIZES.get(self)

    @property
    def code(self) -> str | None:
        """As :mod:`struct` calls it; None: it has no name for it."""
        return _CODES.get(self)


_CODES = {
    Datatype.BOOL: "?",
    Datatype.UINT8: "B",
    Datatype.UINT16: "H",
    Datatype.UINT32: "I",
    Datatype.UINT64: "Q",
    Datatype.INT8: "b",
    Datatype.INT16: "h",
    Datatype.INT32: "i",
    Datatype.INT64: "q",
    Datatype.FP16: "e",
    Datatype.FP32: "f",
    Datatype.FP64: "d",
}
_SIZES = {kind: struct.calcsize(f"<{code}") for kind, code in _CODES.items()}
_SIZES[Datatype.BF16] = 2

# What arrays call their elements; "l" and "L" are as long as the machine says.
_OF_FORMAT = {code: kind for kind, code in _CODES.items()}
_OF_FORMAT["l"] = {4: Datatype.INT32, 8: Datatype.INT64}[struct.calcsize("l")]
_OF_FORMAT["L"] = {4: Datatype.UINT32, 8: Datatype.UINT64}[struct.calcsize("L")]

_LENGTH = struct.Struct("<I")


@attrs.frozen
class Tensor:
    """A tensor with its name.

    Attributes:
        name: as the model calls it.
        datatype: what its elements are.
        shape: its dimensions; none: one element.
        data: the elements.

    Raises:
        ValueError: the bytes are not as many as the shape says.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    data: bytes = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        if any(size < 0 for size in self.shape):
            raise ValueError(f"{self.name!r} has the shape {shown(self.shape)}")
        count, size = prod(self.shape), self.datatype.size_bytes
        found = sum(1 for _ in texts(self.data)) if size is None else len(self.data)
        wanted = count * (size or 1)
        if found != wanted:
            what = "texts" if size is None else "bytes"
            raise ValueError(
                f"{self.name!r} has {found} {what}; {self.datatype.value} of the shape "
                f"{shown(self.shape)} has {wanted}"
            )

    @classmethod
    def of(cls, name: str, array: Any) -> Tensor:  # noqa: ANN401 - any buffer
        """Return the tensor of an array: numpy's, :mod:`array`'s, a memoryview.

        Raises:
            ValueError: its elements are of no kind that tensors have.

        >>> from array import array
        >>> Tensor.of("x", array("f", [1.0, 2.5]))
        Tensor(name='x', datatype=<Datatype.FP32: 'FP32'>, shape=(2,))
        """
        view = memoryview(array)
        kind = _OF_FORMAT.get(view.format.lstrip("@=<"))
        if kind is None:
            raise ValueError(f"{name!r} has elements of the kind {view.format}")
        return cls(name, kind, tuple(view.shape or ()), view.tobytes())

    @classmethod
    def of_texts(cls, name: str, words: Sequence[bytes | str]) -> Tensor:
        """Return a tensor with one dimension, of texts."""
        return cls(name, Datatype.BYTES, (len(words),), joined(words))

    def values(self) -> list[Any]:
        """Return the elements, one behind the other; texts are bytes.

        Raises:
            ValueError: Python has no name for its elements (BF16).
        """
        if self.datatype is Datatype.BYTES:
            return list(texts(self.data))
        code = self.datatype.code
        if code is None:
            raise ValueError(f"{self.name!r} is {self.datatype.value}")
        return list(struct.unpack(f"<{prod(self.shape)}{code}", self.data))


def joined(words: Iterable[bytes | str]) -> bytes:
    """Return texts as the bytes of a tensor."""
    raw = (word.encode() if isinstance(word, str) else word for word in words)
    return b"".join(_LENGTH.pack(len(word)) + word for word in raw)


def texts(data: bytes) -> Iterator[bytes]:
    """Give the texts that a tensor's bytes hold.

    Raises:
        ValueError: the last one is cut.

    >>> list(texts(joined(["a", b"", "bc"])))
    [b'a', b'', b'bc']
    """
    at = 0
    while at < len(data):
        begin = at + _LENGTH.size
        if begin > len(data):
            raise ValueError("the length of a text is cut")
        at = begin + _LENGTH.unpack_from(data, begin - _LENGTH.size)[0]
        if at > len(data):
            raise ValueError("a text is cut")
        yield data[begin:at]


ANY_SIZE = -1
"""A dimension that may have any size."""


@attrs.frozen
class TensorSpec:
    """What a model takes or gives under a name.

    Attributes:
        name: as the model calls it.
        datatype: what its elements are.
        shape: its dimensions; ``ANY_SIZE``: as it comes.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """As an error says it.

        >>> str(TensorSpec("x", Datatype.FP32, (-1, 3)))
        "'x' FP32 [-1, 3]"
        """
        return f"{self.name!r} {self.datatype.value} {shown(self.shape)}"


@attrs.frozen
class Signature:
    """What a model takes and gives.

    Attributes:
        inputs: all of them must be given.
        outputs: any of them may be wanted.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@attrs.frozen(kw_only=True)
class InferRequest:
    """Tensors for a model.

    Attributes:
        request_id: unique per request; appears in every log line about it.
        model: what the runtime is asked for.
        inputs: each with another name.
        outputs: the names of those that are wanted; none: all.
        describes: True when what the model takes and gives is wanted, and no run.
        priority: who goes first when there is a queue; higher first.
        timeout_s: the client's own bound on the whole request.
        asker: whose virtual key it showed; None: none.
    """

    request_id: str
    model: str
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[str, ...] = ()
    describes: bool = False
    priority: int = 0
    timeout_s: float | None = None
    asker: Asker | None = None


@attrs.frozen(kw_only=True)
class Inferred:
    """What a model gave.

    Attributes:
        outputs: in the order in which they were wanted.
        usage: what its provider counted.
        signature: what the model takes and gives, where that was wanted.
    """

    outputs: tuple[Tensor, ...] = ()
    usage: Usage = attrs.field(factory=Usage)
    signature: Signature | None = None

    def output(self, name: str) -> Tensor:
        """Return the output of a name.

        Raises:
            KeyError: there is none.
        """
        for tensor in self.outputs:
            if tensor.name == name:
                return tensor
        raise KeyError(name)


def shown(shape: tuple[int, ...]) -> str:
    """Return a shape as errors say it.

    >>> shown((1, -1))
    '[1, -1]'
    """
    return f"[{', '.join(map(str, shape))}]"


def check_tensors(request: InferRequest, signature: Signature) -> None:
    """Refuse tensors that a model does not take.

    Raises:
        InvalidRequestError: names the tensor and its shape, and what the model takes.
    """
    known = {spec.name: spec for spec in signature.inputs}
    given: set[str] = set()
    for tensor in request.inputs:
        if tensor.name in given:
            raise _refused(tensor.name, "is given twice")
        given.add(tensor.name)
        spec = known.get(tensor.name)
        if spec is None:
            raise _refused(tensor.name, f"is no input; {_takes(signature)}")
        if not _fits(tensor, spec):
            kind, shape = tensor.datatype.value, shown(tensor.shape)
            raise _refused(tensor.name, f"is {kind} {shape}; the model takes {spec}")
    if missing := known.keys() - given:
        raise _refused(min(missing), f"is missing; {_takes(signature)}")
    gives = {spec.name for spec in signature.outputs}
    for name in request.outputs:
        if name not in gives:
            told = ", ".join(map(str, signature.outputs))
            problem = f"{name!r} is no output; the model gives {told}"
            raise InvalidRequestError(problem, param=f"outputs[{name}]")


def _fits(tensor: Tensor, spec: TensorSpec) -> bool:
    return (
        tensor.datatype is spec.datatype
        and len(tensor.shape) == len(spec.shape)
        and all(
            want in (ANY_SIZE, size)
            for size, want in zip(tensor.shape, spec.shape, strict=True)
        )
    )


def _takes(signature: Signature) -> str:
    return f"the model takes {', '.join(map(str, signature.inputs))}"


def _refused(name: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name!r} {problem}", param=f"inputs[{name}]")
