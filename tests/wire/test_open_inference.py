"""The Open Inference Protocol is read strictly, as JSON and with binary tensors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.tensors import Datatype, InferRequest, Tensor, joined
from atomr_infer.wire.ingress import Call
from atomr_infer.wire.open_inference.request import (
    JSON_LENGTH,
    InferAsked,
    parse_infer,
)

X: dict[str, Any] = {"name": "x", "shape": [2, 1], "datatype": "INT16", "data": [1, 2]}


def call(body: bytes, **headers: str) -> Call:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Call(request_id="r", body=body, model="m", headers=named)


def parse(**members: Any) -> InferAsked:
    return parse_infer(call(json.dumps({"inputs": [X], **members}).encode()))


def of(kind: str, data: list[Any], shape: list[int]) -> Tensor:
    each = {"name": "x", "shape": shape, "datatype": kind, "data": data}
    [tensor] = parse(inputs=[each]).request.inputs
    return tensor


def test_a_request_names_its_tensors() -> None:
    tensor = Tensor("x", Datatype.INT16, (2, 1), b"\x01\x00\x02\x00")
    asked = parse(id="mine", outputs=[{"name": "y"}], parameters={"other": 1})
    request = InferRequest(request_id="r", model="m", inputs=(tensor,), outputs=("y",))
    assert asked == InferAsked(request=request, id="mine", binary=frozenset())


@pytest.mark.parametrize(
    ("kind", "data", "shape", "values"),
    [
        ("BOOL", [True, False], [2], [True, False]),
        ("UINT64", [2**64 - 1], [1], [2**64 - 1]),
        ("INT8", [[-128], [127]], [2, 1], [-128, 127]),
        ("FP64", [1, 2.5], [2], [1.0, 2.5]),
        ("FP32", [[[1.0, 2.0]], [[3.0, 4.0]]], [2, 1, 2], [1.0, 2.0, 3.0, 4.0]),
        ("FP32", [7.0], [], [7.0]),
        ("BYTES", [["a", "é"]], [1, 2], [b"a", "é".encode()]),
        ("FP32", [], [0, 3], []),
        ("FP32", [[], []], [2, 0], []),
    ],
)
def test_elements_are_read_as_what_they_are(
    kind: str, data: list[Any], shape: list[int], values: list[Any]
) -> None:
    tensor = of(kind, data, shape)
    assert (tensor.datatype.value, tensor.shape) == (kind, tuple(shape))
    assert tensor.values() == values


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"shape": [3, 1]}, "'inputs[0].data' has 2 elements; the shape [3, 1] has 3"),
        (
            {"data": [[1], [2, 3]]},
            "'inputs[0].data' has lists of another length than 1 at depth 1; the shape "
            "is [2, 1]",
        ),
        (
            {"shape": [2, -2]},
            "'inputs[0].shape' must hold at most 32 sizes, none below 0",
        ),
        (
            {"shape": [1] * 33},
            "'inputs[0].shape' must hold at most 32 sizes, none below 0",
        ),
        (
            {"shape": [10**4000] * 4},
            "'inputs[0].shape' has more than 1099511627776 elements",
        ),
        (
            {"shape": [0, 2**62], "data": []},
            "'inputs[0].shape' has more than 1099511627776 elements",
        ),
        ({"datatype": "FP8"}, "'inputs[0].datatype' must be one of BOOL, UINT8"),
        (
            {"datatype": "FP16"},
            "'inputs[0].data' is FP16, which only the binary form has",
        ),
        (
            {"datatype": "INT8", "data": [1, 300]},
            "'inputs[0].data' holds what is no INT8: ",
        ),
        (
            {"datatype": "FP32", "data": [1e300, 1]},
            "'inputs[0].data' holds what is no FP32: ",
        ),
        (
            {"datatype": "FP32", "data": [True, 1]},
            "'inputs[0].data' must be a list of numbers, or lists of them, not "
            "[true, 1]",
        ),
        ({"data": None}, "'inputs[0].data' is required"),
        ({"name": None}, "'inputs[0].name' must be a string"),
        (
            {"parameters": {"binary_data_size": 4}},
            "'inputs[0].parameters.binary_data_size' is 4, and 0 bytes are left of the "
            "body",
        ),
        (
            {"parameters": {"binary_data_size": -1}},
            "'inputs[0].parameters.binary_data_size' must be between 0 and",
        ),
    ],
    ids=[str(number) for number in range(15)],
)
def test_what_is_wrong_with_a_tensor_is_named(
    wrong: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(inputs=[{**X, **wrong}])
    assert caught.value.message.startswith(problem)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"inputs": []}, "'inputs' must not be empty"),
        ({"inputs": None}, "'inputs' must not be empty"),
        ({"inputs": 1}, "'inputs' must be a list of tensors, not 1"),
        ({"inputs": [X] * 1025}, "'inputs' must hold at most 1024 tensors"),
        (
            {"outputs": [{"name": "y"}, {"name": "y"}]},
            "'outputs[1].name' is 'y' a second time",
        ),
        ({"id": 1}, "'id' must be a string"),
    ],
    ids=[str(number) for number in range(6)],
)
def test_what_is_wrong_with_a_request_is_named(
    members: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse(**members)
    assert caught.value.message.startswith(problem)


def binary(*sizes: int) -> bytes:
    inputs = [
        {
            "name": f"x{number}",
            "shape": [size - 4],
            "datatype": "UINT8",
            "parameters": {"binary_data_size": size - 4},
        }
        for number, size in enumerate(sizes)
    ]
    return json.dumps({"inputs": inputs}).encode()


def test_bytes_behind_the_json_are_cut_in_order() -> None:
    head = binary(6, 4, 5)
    told = {JSON_LENGTH.replace("-", "_"): str(len(head))}
    asked = parse_infer(call(head + b"abc", **told))
    assert [each.data for each in asked.request.inputs] == [b"ab", b"", b"c"]


def test_a_binary_tensor_of_texts_must_be_whole() -> None:
    each = {
        "name": "x",
        "shape": [2],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": 5},
    }
    head = json.dumps({"inputs": [each]}).encode()
    told = {JSON_LENGTH.replace("-", "_"): str(len(head))}
    with pytest.raises(InvalidRequestError) as caught:
        parse_infer(call(head + joined(["a"]), **told))
    assert (caught.value.param, caught.value.message) == (
        "inputs[0]",
        "'x' has 1 texts; BYTES of the shape [2] has 2",
    )


@pytest.mark.parametrize("length", ["-1", "x", "99999", "1e1", "\xb2", ""])
def test_a_length_that_lies_is_refused(length: str) -> None:
    told = {JSON_LENGTH.replace("-", "_"): length}
    with pytest.raises(InvalidRequestError) as caught:
        parse_infer(call(json.dumps({"inputs": [X]}).encode(), **told))
    assert caught.value.message == (
        f"{JSON_LENGTH}: {length!r} is no length within the body"
    )


def test_a_length_of_thousands_of_digits_is_refused() -> None:
    told = {JSON_LENGTH.replace("-", "_"): "9" * 5000}
    with pytest.raises(InvalidRequestError, match="is no length within the body"):
        parse_infer(call(json.dumps({"inputs": [X]}).encode(), **told))


def test_no_byte_may_stand_behind_the_last_tensor() -> None:
    body = json.dumps({"inputs": [X]}).encode()
    told = {JSON_LENGTH.replace("-", "_"): str(len(body))}
    with pytest.raises(InvalidRequestError) as caught:
        parse_infer(call(body + b"x", **told))
    assert caught.value.message == "the body has 1 bytes behind its last tensor"


@pytest.mark.parametrize("name", ["", "a" * 257, "a\nb"])
def test_a_name_that_nobody_can_read_is_refused(name: str) -> None:
    body = json.dumps({"inputs": [X]}).encode()
    with pytest.raises(InvalidRequestError, match="1 to 256 printable"):
        parse_infer(Call(request_id="r", body=body, model=name))
