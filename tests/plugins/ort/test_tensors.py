"""Any ONNX file takes tensors: what it makes of them is what numpy makes."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import attrs
import numpy as np
import onnx
import pytest
import trio
import trio.testing
from onnx import TensorProto, helper

from atomr_infer.cluster import Cluster
from atomr_infer.errors import (
    EndpointUnsupportedError,
    EngineStartError,
    InvalidRequestError,
    NotReadyError,
)
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.tensors import (
    ANY_SIZE,
    Datatype,
    Inferred,
    InferRequest,
    Signature,
    Tensor,
    TensorSpec,
)
from atomr_infer.runtimes.contract import RunnerContext
from atomr_infer_ort.plugin import PLUGIN
from atomr_infer_ort.tensors import OrtTensorRunner
from tests.gateway.http import request
from tests.plugins.ort.bert import BertShape, random_bert, write_bert
from tests.plugins.ort.graphs import Array, Graph, _tensor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from atomr_infer_ort.session import Session

pytestmark = pytest.mark.engine

TABLE = np.random.default_rng(5).standard_normal((4, 3)).astype(np.float32)


def gather(batch: str = "batch") -> onnx.ModelProto:
    """``y = table[index] * scale``, by rows; ``words`` are given back."""
    graph = Graph()
    rows = graph.add("Gather", graph.weight("table", TABLE), "index")
    graph.named("Mul", "y", rows, graph.add("Unsqueeze", "scale", graph.ints(1)))
    graph.named("Identity", "said", "words")
    return graph.model(
        [
            _tensor("index", TensorProto.INT64, batch),
            _tensor("scale", TensorProto.FLOAT, batch),
            _tensor("words", TensorProto.STRING, batch),
        ],
        [
            _tensor("y", TensorProto.FLOAT, batch, 3),
            _tensor("said", TensorProto.STRING, batch),
        ],
    )


def summed() -> onnx.ModelProto:
    """One number of all rows: they are not each for themselves."""
    graph = Graph()
    graph.named("ReduceSum", "y", "x", keepdims=1)
    return graph.model(
        [_tensor("x", TensorProto.FLOAT, "rows")],
        [_tensor("y", TensorProto.FLOAT, "one")],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(gather(), tmp_path / "model.onnx")
    return tmp_path


def deployment(folder: Path, **options: Any) -> Deployment:
    return Deployment(
        name="t", runtime="ort", model=str(folder), options={"threads": 1, **options}
    )


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[Any]:
    wanted = deployment(folder, **options)
    async with PLUGIN.open_runner(wanted, RunnerContext()) as runner:
        yield runner


def asked(*index: int, outputs: tuple[str, ...] = ()) -> InferRequest:
    return InferRequest(
        request_id="r",
        model="t",
        inputs=(
            Tensor.of("index", np.array(index, np.int64)),
            Tensor.of("scale", np.full(len(index), 2, np.float32)),
            Tensor.of_texts("words", [f"é{number}" for number in index]),
        ),
        outputs=outputs,
    )


def expected(*index: int) -> Array:
    made: Array = TABLE[list(index)] * np.float32(2)
    return made


def array(tensor: Tensor) -> Array:
    return np.array(tensor.values(), np.float32).reshape(tensor.shape)


async def test_what_comes_out_is_what_numpy_makes(folder: Path) -> None:
    async with opened(folder) as runner:
        assert runner.capabilities.signature == Signature(
            inputs=(
                TensorSpec("index", Datatype.INT64, (-1,)),
                TensorSpec("scale", Datatype.FP32, (-1,)),
                TensorSpec("words", Datatype.BYTES, (-1,)),
            ),
            outputs=(
                TensorSpec("y", Datatype.FP32, (-1, 3)),
                TensorSpec("said", Datatype.BYTES, (-1,)),
            ),
        )
        found = await runner.infer(asked(1, 3))
        assert [each.name for each in found.outputs] == ["y", "said"]
        assert np.array_equal(array(found.output("y")), expected(1, 3))
        assert found.output("said") == Tensor.of_texts("said", ["é1", "é3"])
        alone = await runner.infer(asked(0, outputs=("said",)))
        assert alone == Inferred(outputs=(Tensor.of_texts("said", ["é0"]),))
        assert (runner.runs, runner.active) == (2, 0)


async def test_requests_that_wait_share_a_run(folder: Path) -> None:
    found: dict[int, Inferred] = {}

    async def ask(runner: Any, number: int) -> None:
        index = [number % 4] * (number + 1)
        found[number] = await runner.infer(asked(*index, outputs=("y",)))

    async with opened(folder, join_requests=True) as runner:
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(ask, runner, number)
        # The first went alone, and the others met while it ran; or all met.
        assert runner.runs <= 2
    for number, each in found.items():
        index = [number % 4] * (number + 1)
        assert np.array_equal(array(each.output("y")), expected(*index))


async def test_they_do_not_unless_the_deployment_says_so(folder: Path) -> None:
    async with opened(folder) as runner, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(runner.infer, asked(1))
        await trio.testing.wait_all_tasks_blocked()
    assert runner.runs == 4


async def test_values_that_it_cannot_compute_with_are_their_clients_fault_alone(
    folder: Path,
) -> None:
    failed: list[str] = []
    found: list[Inferred] = []

    async def ask(runner: Any, index: int) -> None:
        try:
            found.append(await runner.infer(asked(index)))
        except InvalidRequestError as error:
            failed.append(error.message)

    async with opened(folder, join_requests=True) as runner:
        async with trio.open_nursery() as nursery:
            for index in (0, 99, 1, 2):
                nursery.start_soon(ask, runner, index)
        assert (await runner.infer(asked(3))).outputs
    assert len(found) == 3
    [problem] = failed
    assert problem.startswith("the model cannot compute with this: ")
    assert "out of data bounds" in problem


async def test_rows_that_are_not_what_they_seem_are_run_alone(tmp_path: Path) -> None:
    onnx.save(summed(), tmp_path / "model.onnx")
    found: dict[int, list[float]] = {}

    async def ask(runner: Any, number: int) -> None:
        x = Tensor.of("x", np.array([number, 1], np.float32))
        wanted = InferRequest(request_id="r", model="t", inputs=(x,))
        found[number] = (await runner.infer(wanted)).output("y").values()

    async with (
        opened(tmp_path, join_requests=True) as runner,
        trio.open_nursery() as nursery,
    ):
        for number in range(4):
            nursery.start_soon(ask, runner, number)
    assert found == {number: [number + 1.0] for number in range(4)}


async def test_a_request_that_leaves_is_in_no_further_run(folder: Path) -> None:
    async with opened(folder) as runner:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.infer, asked(1))
            await trio.testing.wait_all_tasks_blocked(0.0)
            nursery.start_soon(runner.infer, asked(2))
            nursery.cancel_scope.cancel()
        assert runner.active == 0
        assert (await runner.infer(asked(3))).outputs
        assert runner.runs <= 2


async def test_a_closed_engine_says_so(folder: Path) -> None:
    async with opened(folder) as runner:
        pass
    with pytest.raises(NotReadyError, match="the engine is closed"):
        await runner.infer(asked(1))


class RuntimeException(Exception):  # noqa: N818  as ONNX Runtime calls it
    """A run failed by what it was given."""


class Closing:
    """A session that cannot run several together, and closes in its second run."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self.runs = 0
        self._scope = scope

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="x", type="tensor(float)", shape=["rows"])]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="y", type="tensor(float)", shape=["rows"])]

    def run(self, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        self.runs += 1
        if self.runs == 1:
            raise RuntimeException
        trio.from_thread.run_sync(self._scope.cancel)
        return [feeds["x"]]


async def test_who_is_to_be_run_alone_is_told_when_the_engine_closes() -> None:
    ends: list[str] = []
    async with trio.open_nursery() as nursery, trio.open_nursery() as engine:
        session = Closing(engine.cancel_scope)
        runner = OrtTensorRunner(cast("Session", session), joins=True)

        async def ask() -> None:
            x = Tensor.of("x", np.ones(1, np.float32))
            request = InferRequest(request_id="r", model="t", inputs=(x,))
            try:
                await runner.infer(request)
            except NotReadyError as error:
                ends.append(error.message)
            else:
                ends.append("made")

        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked(0.0)
        nursery.cancel_scope.deadline = trio.current_time() + 10.0
        engine.start_soon(runner.run)
    assert sorted(ends) == ["made", "the engine is closed", "the engine is closed"]
    assert session.runs == 2


async def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    wrong = attrs.evolve(
        asked(1),
        inputs=(*asked(1).inputs[:2], Tensor.of_texts("words", [b"\xff"])),
    )
    async with opened(folder) as runner:
        with pytest.raises(InvalidRequestError, match="'words' holds bytes"):
            await runner.infer(wrong)


async def test_it_writes_no_text(folder: Path) -> None:
    batch = ExecuteBatch(request_id="r", model="t", messages=())
    async with opened(folder) as runner:
        with pytest.raises(EndpointUnsupportedError, match="it does not write text"):
            async with runner.execute(batch):
                pass


async def test_a_model_of_texts_takes_tensors_where_that_is_wanted(
    tmp_path: Path,
) -> None:
    shape = BertShape()
    write_bert(tmp_path, shape, random_bert(shape))
    async with opened(tmp_path, tensors=True) as runner:
        ids = np.array([[2, 4, 3]], np.int64)
        tensors = (
            Tensor.of("input_ids", ids),
            Tensor.of("attention_mask", np.ones_like(ids)),
            Tensor.of("token_type_ids", np.zeros_like(ids)),
        )
        wanted = InferRequest(request_id="r", model="t", inputs=tensors)
        found = await runner.infer(wanted)
    assert found.output("last_hidden_state").shape == (1, 3, shape.hidden)


async def test_a_kind_that_no_array_has_stops_the_start(tmp_path: Path) -> None:
    graph = Graph()
    graph.named("Identity", "y", "x")
    kinds = [_tensor(name, TensorProto.BFLOAT16, 1) for name in ("x", "y")]
    onnx.save(graph.model(kinds[:1], kinds[1:]), tmp_path / "model.onnx")
    with pytest.raises(EngineStartError, match=r"'x' of the model is tensor\(bfloat16"):
        async with opened(tmp_path):
            pass


def zipped(keys: dict[str, list[Any]]) -> onnx.ModelProto:
    """Numbers as a classifier's probabilities, as converters write them."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])
    kind = TensorProto.STRING if "classlabels_strings" in keys else TensorProto.INT64
    table = helper.make_map_type_proto(
        kind, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    made = helper.make_value_info("y", helper.make_sequence_type_proto(table))
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", **keys)  # type: ignore[arg-type] # its attributes are any
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph([node], "zipped", [given], [made])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize(
    "keys",
    [{"classlabels_int64s": [3, 4]}, {"classlabels_strings": ["cat", "dog"]}],
    ids=["numbers", "texts"],
)
@pytest.mark.parametrize("joins", [False, True], ids=["alone", "together"])
async def test_maps_of_classes_are_rows_of_probabilities(
    tmp_path: Path, keys: dict[str, list[Any]], joins: bool
) -> None:
    onnx.save(zipped(keys), tmp_path / "model.onnx")
    found: dict[int, Array] = {}

    async def ask(runner: Any, number: int) -> None:
        x = np.array([[number, 0.5], [1.0, 0.25]], np.float32)
        wanted = InferRequest(
            request_id="r", model="t", inputs=(Tensor.of("x", x[: number + 1]),)
        )
        found[number] = array((await runner.infer(wanted)).output("y"))

    async with opened(tmp_path, join_requests=joins) as runner:
        [told] = runner.capabilities.signature.outputs
        assert told == TensorSpec("y", Datatype.FP32, (ANY_SIZE, ANY_SIZE))
        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(ask, runner, number)
    assert found[0].tolist() == [[0.0, 0.5]]
    assert found[1].tolist() == [[1.0, 0.5], [1.0, 0.25]]


async def test_programs_and_clients_ask_across_the_bridge(folder: Path) -> None:
    async with Cluster.connect("inproc://tensors") as cluster:
        await cluster.deploy(deployment(folder))
        found = await cluster.infer("t", *asked(2).inputs, outputs=("y",))
        assert np.array_equal(array(found.output("y")), expected(2))
        with pytest.raises(InvalidRequestError) as caught:
            await cluster.infer("t", *asked(2).inputs[:2])
        assert caught.value.message == (
            "'words' is missing; the model takes 'index' INT64 [-1], 'scale' FP32 [-1],"
            " 'words' BYTES [-1]"
        )
        gateway = await cluster.serve("127.0.0.1:0")
        port = int(gateway.url.rpartition(":")[2])
        ask = partial(request, port)
        told = await ask("GET", "/v2/models/t")
        assert (told.json["platform"], len(told.json["inputs"])) == ("ort", 3)
        body = {
            "inputs": [
                {"name": "index", "shape": [1], "datatype": "INT64", "data": [1]},
                {"name": "scale", "shape": [1], "datatype": "FP32", "data": [2]},
                {"name": "words", "shape": [1], "datatype": "BYTES", "data": ["é"]},
            ]
        }
        path = "/v2/models/t/infer"
        answer = await ask("POST", path, json.dumps(body).encode())
        y, said = answer.json["outputs"]
        assert y["data"] == [float(value) for value in expected(1).ravel()]
        assert (y["shape"], said["data"]) == ([1, 3], ["é"])
