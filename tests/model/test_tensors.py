"""Tensors are as many bytes as their shape says, and fit what a model takes."""

from __future__ import annotations

from array import array
from typing import Any

import attrs
import numpy as np
import pytest

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.tensors import (
    ANY_SIZE,
    Datatype,
    Inferred,
    InferRequest,
    Signature,
    Tensor,
    TensorSpec,
    check_tensors,
    joined,
    texts,
)

X = Tensor("x", Datatype.FP32, (2, 2), array("f", [1.0, 2.0, 3.0, 4.0]).tobytes())
MASK = Tensor("mask", Datatype.BOOL, (2,), b"\x01\x00")
TAKES = Signature(
    inputs=(
        TensorSpec("x", Datatype.FP32, (ANY_SIZE, 2)),
        TensorSpec("mask", Datatype.BOOL, (2,)),
    ),
    outputs=(TensorSpec("y", Datatype.FP32, (ANY_SIZE,)),),
)


@pytest.mark.parametrize(
    ("array", "kind", "values"),
    [
        (np.array([[1, -2]], np.int64), Datatype.INT64, [1, -2]),
        (np.array([1, 2], np.uint16), Datatype.UINT16, [1, 2]),
        (np.array([0.5], np.float16), Datatype.FP16, [0.5]),
        (np.array([0.5], np.float64), Datatype.FP64, [0.5]),
        (np.array([True, False]), Datatype.BOOL, [True, False]),
        (np.array(7, np.int8), Datatype.INT8, [7]),
        (array("L", [3]), Datatype.UINT64, [3]),
    ],
    ids=lambda value: value.value if isinstance(value, Datatype) else "",
)
def test_an_array_becomes_a_tensor(array: Any, kind: Datatype, values: object) -> None:
    tensor = Tensor.of("x", array)
    assert tensor.datatype is kind
    assert tensor.shape == memoryview(array).shape
    assert tensor.values() == values


def test_the_rows_of_a_turned_array_are_put_in_order() -> None:
    turned = np.array([[1, 2], [3, 4]], np.int32).T
    assert Tensor.of("x", turned).values() == [1, 3, 2, 4]


def test_what_tensors_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="'x' has elements of the kind Zd"):
        Tensor.of("x", np.array([1j]))


def test_texts_keep_their_bytes() -> None:
    tensor = Tensor.of_texts("t", ["héllo", b"\xff", ""])
    assert tensor.shape == (3,)
    assert tensor.values() == ["héllo".encode(), b"\xff", b""]


@pytest.mark.parametrize(
    ("kind", "shape", "data", "problem"),
    [
        ("FP32", (2, 2), b"123", "'x' has 3 bytes; FP32 of the shape [2, 2] has 16"),
        ("INT8", (), b"", "'x' has 0 bytes; INT8 of the shape [] has 1"),
        ("INT8", (-1,), b"", "'x' has the shape [-1]"),
        ("INT8", (2**62, 2**62), b"1", "has 1 bytes"),
        ("BYTES", (2,), joined(["a"]), "'x' has 1 texts"),
        ("BYTES", (1,), b"\x09\0\0\0a", "a text is cut"),
        ("BYTES", (1,), b"\x09\0", "the length of a text is cut"),
    ],
)
def test_bytes_that_are_not_the_shape_s_are_no_tensor(
    kind: str, shape: tuple[int, ...], data: bytes, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem.replace("[", r"\[")):
        Tensor("x", Datatype(kind), shape, data)


def test_python_has_no_name_for_a_brain_float() -> None:
    half = Tensor("x", Datatype.BF16, (1,), b"\x80\x3f")
    with pytest.raises(ValueError, match="'x' is BF16"):
        half.values()


def test_a_model_is_given_what_it_takes() -> None:
    check_tensors(InferRequest(request_id="r", model="m", inputs=(MASK, X)), TAKES)
    wants_y = InferRequest(request_id="r", model="m", inputs=(X, MASK), outputs=("y",))
    check_tensors(wants_y, TAKES)


WIDE = Tensor("x", Datatype.FP32, (1, 4), X.data)
FLAT = Tensor("x", Datatype.FP32, (4,), X.data)


@pytest.mark.parametrize(
    ("inputs", "outputs", "param", "problem"),
    [
        (
            (X,),
            (),
            "inputs[mask]",
            "'mask' is missing; the model takes 'x' FP32 [-1, 2], 'mask' BOOL [2]",
        ),
        (
            (X, MASK, attrs.evolve(X, name="z")),
            (),
            "inputs[z]",
            "'z' is no input; the model takes 'x' FP32 [-1, 2], 'mask' BOOL [2]",
        ),
        (
            (WIDE, MASK),
            (),
            "inputs[x]",
            "'x' is FP32 [1, 4]; the model takes 'x' FP32 [-1, 2]",
        ),
        (
            (FLAT, MASK),
            (),
            "inputs[x]",
            "'x' is FP32 [4]; the model takes 'x' FP32 [-1, 2]",
        ),
        (
            (attrs.evolve(X, datatype=Datatype.INT32), MASK),
            (),
            "inputs[x]",
            "'x' is INT32 [2, 2]; the model takes 'x' FP32 [-1, 2]",
        ),
        ((X, X), (), "inputs[x]", "'x' is given twice"),
        (
            (X, MASK),
            ("y", "q"),
            "outputs[q]",
            "'q' is no output; the model gives 'y' FP32 [-1]",
        ),
    ],
)
def test_what_a_model_does_not_take_is_refused_with_what_it_takes(
    inputs: tuple[Tensor, ...], outputs: tuple[str, ...], param: str, problem: str
) -> None:
    request = InferRequest(request_id="r", model="m", inputs=inputs, outputs=outputs)
    with pytest.raises(InvalidRequestError) as caught:
        check_tensors(request, TAKES)
    assert (caught.value.param, caught.value.message) == (param, problem)


def test_an_output_is_found_by_its_name() -> None:
    found = Inferred(outputs=(X, MASK))
    assert found.output("mask") is MASK
    with pytest.raises(KeyError):
        found.output("y")


def test_nothing_is_no_text() -> None:
    assert list(texts(b"")) == []
