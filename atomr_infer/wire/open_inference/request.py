"""Read a request of the Open Inference Protocol, as JSON or with binary tensors.

In the binary form the body is JSON, as long as ``inference-header-content-length``
says, and behind it the bytes of each input that has a ``binary_data_size``, in order.

Pure.

Source: Open Inference Protocol, "Inference"; Triton Inference Server, "Binary Tensor
Data Extension".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.tensors import Datatype, InferRequest, Tensor
from atomr_infer.wire.fields import Fields, invalid
from atomr_infer.wire.open_inference.elements import MAX_DIMENSIONS, of_json
from atomr_infer.wire.openai.chat_request import MAX_NAME

if TYPE_CHECKING:
    from msgspec import Raw

    from atomr_infer.wire.ingress import Call

JSON_LENGTH = "inference-header-content-length"
"""The header that says how much of a body is JSON; the rest is tensors."""

_KINDS = {kind.value: kind for kind in Datatype}
_MAX_TENSORS = 1024
_MAX_DIGITS = 20
"""Of a length; Python does not even read a number of thousands."""
_MAX_ELEMENTS = 2**40
"""Of a tensor, were none of its sizes 0: arrays are not addressed beyond that."""


@attrs.frozen(kw_only=True)
class InferAsked:
    """A request, read.

    Attributes:
        request: its canonical form.
        id: the client's own name for it.
        binary: the outputs that are wanted as bytes; None: all of them.
    """

    request: InferRequest
    id: str | None = None
    binary: frozenset[str] | None = frozenset()

    def is_binary(self, output: str) -> bool:
        """Whether an output is wanted as bytes."""
        return self.binary is None or output in self.binary


def parse_infer(call: Call) -> InferAsked:
    """Return the request that a call's body holds.

    Raises:
        InvalidRequestError: with ``param`` naming the member at fault.
    """
    head, rest = _parted(call)
    root = Fields.of_body(head, wanted="with 'inputs'")
    inputs = _inputs(root, rest)
    outputs, binary = _outputs(root)
    parameters = root.nested("parameters")
    all_binary = parameters is not None and parameters.flag("binary_data_output")
    return InferAsked(
        request=InferRequest(
            request_id=call.request_id,
            model=path_model(call),
            inputs=inputs,
            outputs=outputs,
        ),
        id=root.text("id"),
        binary=None if all_binary and not outputs else binary,
    )


def path_model(call: Call) -> str:
    """Return the model's name, which the path holds.

    Raises:
        InvalidRequestError: it is none, too long, or holds what nobody can read.
    """
    name = call.model or ""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise invalid("model", f"must be 1 to {MAX_NAME} printable characters")
    return name


def _parted(call: Call) -> tuple[bytes, memoryview]:
    """Return a body's JSON, and the tensors behind it."""
    told = call.headers.get(JSON_LENGTH)
    if told is None:
        return call.body, memoryview(b"")
    is_number = told.isascii() and told.isdecimal() and len(told) <= _MAX_DIGITS
    if not is_number or int(told) > len(call.body):
        problem = f"{JSON_LENGTH}: {told[:40]!r} is no length within the body"
        raise InvalidRequestError(problem, param=JSON_LENGTH)
    body = memoryview(call.body)
    return bytes(body[: int(told)]), body[int(told) :]


def _inputs(root: Fields, rest: memoryview) -> tuple[Tensor, ...]:
    found = []
    for place, raw in _tensors(root, "inputs"):
        each = Fields.of(raw, place)
        name, kind, shape = _name(each), _kind(each), _shape(each)
        size = _binary_size(each)
        if size is None:
            elements = each.raw("data")
            if elements is None:
                raise invalid(each.path("data"), "is required")
            data = of_json(each.path("data"), elements, kind, shape)
        elif size > len(rest):
            problem = f"is {size}, and {len(rest)} bytes are left of the body"
            raise invalid(each.path("parameters.binary_data_size"), problem)
        else:
            data, rest = bytes(rest[:size]), rest[size:]
        try:
            found.append(Tensor(name, kind, shape, data))
        except ValueError as error:
            raise InvalidRequestError(str(error), param=place) from error
    if not found:
        raise invalid("inputs", "must not be empty")
    if len(rest):
        problem = f"the body has {len(rest)} bytes behind its last tensor"
        raise InvalidRequestError(problem, param="inputs")
    return tuple(found)


def _tensors(root: Fields, member: str) -> list[tuple[str, Raw]]:
    found = root.items(member, "a list of tensors")
    if len(found) > _MAX_TENSORS:
        raise invalid(member, f"must hold at most {_MAX_TENSORS} tensors")
    return found


def _name(each: Fields) -> str:
    return each.required("name", str, "a string")


def _kind(each: Fields) -> Datatype:
    told = each.required("datatype", str, "a string")
    if told not in _KINDS:
        raise invalid(each.path("datatype"), f"must be one of {', '.join(_KINDS)}")
    return _KINDS[told]


def _shape(each: Fields) -> tuple[int, ...]:
    shape = each.required("shape", list[int], "a list of whole numbers")
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
        problem = f"must hold at most {MAX_DIMENSIONS} sizes, none below 0"
        raise invalid(each.path("shape"), problem)
    # One by one: their product may be too long to be worked out, or to be told.
    elements = 1
    for size in shape:
        elements *= max(1, size)
        if elements > _MAX_ELEMENTS:
            raise invalid(each.path("shape"), f"has more than {_MAX_ELEMENTS} elements")
    return tuple(shape)


def _binary_size(each: Fields) -> int | None:
    parameters = each.nested("parameters")
    if parameters is None:
        return None
    return parameters.whole("binary_data_size", 0, 2**40)


def _outputs(root: Fields) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the outputs that are wanted, and those of them wanted as bytes."""
    names: list[str] = []
    binary: set[str] = set()
    for place, raw in _tensors(root, "outputs"):
        each = Fields.of(raw, place)
        name = _name(each)
        if name in names:
            raise invalid(each.path("name"), f"is {name!r} a second time")
        names.append(name)
        parameters = each.nested("parameters")
        if parameters is not None and parameters.flag("binary_data"):
            binary.add(name)
    return tuple(names), frozenset(binary)
