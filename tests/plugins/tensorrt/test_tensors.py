"""Tensors in, tensors out: alone, beside each other, and together in one run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import trio
import trio.testing
from onnx import TensorProto, helper, numpy_helper

from atomr_infer.errors import (
    ConfigError,
    EndpointUnsupportedError,
    EngineCrashedError,
    EngineError,
    InvalidRequestError,
    NotReadyError,
    UnsupportedFeatureError,
)
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.capabilities import Feature
from atomr_infer.model.tensors import (
    Datatype,
    InferRequest,
    Tensor,
    TensorSpec,
    check_tensors,
)
from atomr_infer_tensorrt.faults import cuda_error
from atomr_infer_tensorrt.library import DATATYPES
from tests.plugins.tensorrt.host import HostContext, host_plan

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.tensorrt.conftest import Opener
    from tests.plugins.tensorrt.host import HostBackend

PATIENCE_S = 120.0


def write(
    path: Path, kind: str, *, given: tuple[Any, ...], made: tuple[Any, ...]
) -> Path:
    """A model of one node: ``y`` of ``x`` and, where it takes two, a weight."""
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    inputs = ["x", "w"] if kind == "MatMul" else ["x"]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, made)],
        [numpy_helper.from_array(weight, "w")] if kind == "MatMul" else [],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture
def product(tmp_path: Path) -> Path:
    path = tmp_path / "product.onnx"
    return write(path, "MatMul", given=("n", 3), made=("n", 2))


def asked(*rows: list[float], outputs: tuple[str, ...] = ()) -> InferRequest:
    value = np.array(rows, np.float32)
    return InferRequest(
        request_id="r", model="m", inputs=(Tensor.of("x", value),), outputs=outputs
    )


ROW = [1.0, 2.0, 3.0]
PRODUCT = [16.0, 22.0]


async def test_tensors_are_computed(opened: Opener, product: Path) -> None:
    async with opened(product) as runner:
        assert runner.capabilities.features == {Feature.INFER}
        signature = runner.capabilities.signature
        assert signature.inputs == (TensorSpec("x", Datatype.FP32, (-1, 3)),)
        assert signature.outputs == (TensorSpec("y", Datatype.FP32, (-1, 2)),)
        made = await runner.infer(asked(ROW, [0.0, 0.0, 0.0]))
    assert made.output("y").shape == (2, 2)
    assert made.output("y").values() == [*PRODUCT, 0.0, 0.0]


async def test_texts_are_refused_before_a_run(opened: Opener, product: Path) -> None:
    assert Datatype.BYTES not in DATATYPES.values()
    async with opened(product) as runner:
        texts = InferRequest(
            request_id="r", model="m", inputs=(Tensor.of_texts("x", ("a", "b")),)
        )
        with pytest.raises(InvalidRequestError, match=r"'x' is BYTES \[2\]; the model"):
            check_tensors(texts, runner.capabilities.signature)


async def test_a_plan_runs_as_it_is(
    opened: Opener, product: Path, tmp_path: Path, backend: HostBackend
) -> None:
    async with opened(product, max_batch=2):
        [recipe] = backend.built
    path = tmp_path / "product.plan"
    path.write_bytes(host_plan(product, recipe))
    async with opened(path) as runner:
        made = await runner.infer(asked(ROW))
    assert made.output("y").values() == PRODUCT
    assert len(backend.built) == 1


async def test_a_shape_outside_of_the_plan_is_the_client_s_error(
    opened: Opener, product: Path
) -> None:
    async with opened(product, max_batch=2) as runner:
        with pytest.raises(InvalidRequestError) as caught:
            await runner.infer(asked(ROW, ROW, ROW))
        assert str(caught.value) == (
            "'x' has the shape [3, 3]; the plan takes [1 to 2, 3]"
        )
        made = await runner.infer(asked(ROW))
    assert made.output("y").values() == PRODUCT


async def test_a_size_that_depends_on_values_is_refused(
    opened: Opener, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.onnx", "Identity", given=("n", 3), made=("other", 3))
    async with opened(path) as runner:
        with pytest.raises(UnsupportedFeatureError, match="the output 'y' depends on"):
            await runner.infer(asked(ROW))


async def test_it_writes_no_text(opened: Opener, product: Path) -> None:
    batch = ExecuteBatch(
        request_id="r", model="m", messages=(Message(Role.USER, "hello"),)
    )
    async with opened(product) as runner:
        with pytest.raises(EndpointUnsupportedError, match="it does not write text"):
            async with runner.execute(batch):
                raise AssertionError


async def test_sizes_that_vary_need_profiles(opened: Opener, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", "Relu", given=("n", "m"), made=("n", "m"))
    with pytest.raises(ConfigError, match=r"takes 'x' \[n, m\]: say with profiles"):
        async with opened(path):
            raise AssertionError
    span = {"least": [1, 3], "usual": [1, 3], "most": [1, 8]}
    async with opened(path, profiles=[{"x": span}]) as runner:
        made = await runner.infer(asked(ROW))
    assert made.output("y").values() == ROW


# --- several at once -----------------------------------------------------------------


class Gate:
    """Holds the runs of a plan until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inside = 0
        self._open = threading.Event()
        self._lock = threading.Lock()
        compute = HostContext._compute

        def held(context: HostContext, *given: Any) -> None:
            with self._lock:
                self.inside += 1
            assert self._open.wait(PATIENCE_S)
            compute(context, *given)

        monkeypatch.setattr(HostContext, "_compute", held)

    async def until_inside(self, count: int) -> None:
        with trio.fail_after(PATIENCE_S):
            while self.inside < count:  # noqa: ASYNC110  it is a thread's
                await trio.sleep(0.001)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


async def test_as_many_runs_are_under_way_as_there_are_contexts(
    opened: Opener, product: Path, gate: Gate, backend: HostBackend
) -> None:
    async with opened(product, contexts=2) as runner, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(runner.infer, asked(ROW))
        await gate.until_inside(2)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (gate.inside, runner.active) == (2, 3)
        gate.open()
    assert gate.inside == 3
    [plan] = backend.opened
    assert (plan.contexts, backend.device.streams) == (0, 0)
    assert (backend.device.memory, backend.device.host) == ({}, {})


async def test_requests_that_wait_share_a_run_where_rows_are_for_themselves(
    opened: Opener, product: Path, gate: Gate, backend: HostBackend
) -> None:
    made: dict[int, list[Any]] = {}

    async def ask(runner: Any, number: int) -> None:
        rows = [[float(number), 0.0, 0.0]] * (number + 1)
        answer = await runner.infer(asked(*rows))
        made[number] = answer.output("y").values()

    async with (
        opened(product, contexts=1, join_requests=True, max_batch=8) as runner,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask, runner, 0)
        await gate.until_inside(1)
        for number in range(1, 4):
            nursery.start_soon(ask, runner, number)
            await trio.testing.wait_all_tasks_blocked()
        gate.open()
    assert made == {n: [0.0, float(n)] * (n + 1) for n in range(4)}
    # 2 and 3 rows, and not 4 more: a run has 8 at most.
    [plan] = backend.opened
    assert [run["x"] for run in plan.runs] == [(1, 3), (5, 3), (4, 3)]


async def test_requests_are_run_alone_where_nothing_else_is_said(
    opened: Opener, product: Path, gate: Gate, backend: HostBackend
) -> None:
    async with opened(product, contexts=1) as runner, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(runner.infer, asked(ROW))
        await gate.until_inside(1)
        gate.open()
    [plan] = backend.opened
    assert [run["x"] for run in plan.runs] == [(1, 3)] * 3


async def test_a_client_that_leaves_is_in_no_further_run(
    opened: Opener, product: Path, gate: Gate, backend: HostBackend
) -> None:
    async with opened(product, contexts=1) as runner, trio.open_nursery() as nursery:
        nursery.start_soon(runner.infer, asked(ROW))
        await gate.until_inside(1)
        with trio.move_on_after(0.01):
            await runner.infer(asked(ROW))
        assert runner.active == 1
        gate.open()
    [plan] = backend.opened
    assert len(plan.runs) == 1


# --- failures -----------------------------------------------------------------------


async def test_a_device_that_is_full_costs_the_request_alone(
    opened: Opener, product: Path, backend: HostBackend
) -> None:
    async with opened(product, max_batch=1000) as runner:
        await runner.infer(asked(ROW))
        backend.device.left, kept = 0, backend.device.left
        with pytest.raises(EngineError, match="the GPU is out of memory") as caught:
            await runner.infer(asked(*[ROW] * 1000))
        assert caught.value.code == "out_of_memory"
        backend.device.left = kept
        made = await runner.infer(asked(ROW))
    assert made.output("y").values() == PRODUCT


@pytest.mark.parametrize(
    "failure",
    [
        cuda_error("running the plan", "cudaErrorIllegalAddress", "illegal address"),
        RuntimeError("pybind"),
    ],
    ids=["of the GPU", "of the library"],
)
async def test_a_run_that_fails_ends_the_engine(
    opened: Opener, product: Path, backend: HostBackend, failure: Exception
) -> None:
    async with opened(product) as runner:
        backend.opened[0].failing = failure
        with pytest.raises(EngineCrashedError):
            await runner.infer(asked(ROW))
        with trio.fail_after(PATIENCE_S):
            assert isinstance(await runner.failed(), EngineCrashedError)
        with pytest.raises(EngineCrashedError):
            await runner.infer(asked(ROW))


async def test_a_closed_engine_takes_nothing(opened: Opener, product: Path) -> None:
    async with opened(product) as runner:
        pass
    with pytest.raises(NotReadyError, match="the engine is closed"):
        await runner.infer(asked(ROW))
