"""The real library parses and builds; running a plan takes a GPU."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from atomr_infer.bridge import open_bridged_runner
from atomr_infer.errors import EngineStartError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.tensors import InferRequest, Tensor
from atomr_infer.runtimes.by_model import this_machine
from atomr_infer.runtimes.contract import RunnerContext
from tests.engines.environments import how_to_make, interpreter_of
from tests.plugins.ort.bert import BertShape, random_bert, write_bert
from tests.plugins.ort.models import write_llama

pytestmark = [pytest.mark.engine, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
REF = "atomr_infer_tensorrt.plugin:PLUGIN"
HAS_GPU = this_machine({}).has_gpu
WITHIN_S = 600.0


@pytest.fixture(scope="module")
def python() -> str:
    found = interpreter_of("tensorrt")
    if found is None:
        pytest.skip(how_to_make("tensorrt"))
    return str(found)


def write_node(path: Path, kind: str, *inputs: str, name: str) -> None:
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, ["y"], name=name)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


@pytest.fixture(scope="module")
def told(python: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What came of each model, in each precision."""
    folder = tmp_path_factory.mktemp("models")
    shape = BertShape()
    write_bert(folder / "encoder", shape, random_bert(shape))
    write_llama(folder / "writer")
    write_node(folder / "relu.onnx", "Relu", "x", name="relu")
    write_node(folder / "odd.onnx", "Frobnicate", "x", name="layer.3/odd")
    done = subprocess.run(
        [python, "-m", "tests.plugins.tensorrt.built", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "name",
    ["encoder model", "encoder fp16", "encoder int8", "encoder fp8", "writer fp16"],
)
def test_a_plan_is_built_in_each_precision(told: Any, name: str) -> None:
    found = told[name]
    assert found["bytes"] > 100_000
    assert found["progress"].startswith("building the plan: ")


def test_a_model_of_tensors_is_built(told: Any) -> None:
    assert told["relu.onnx model"]["bytes"] > 1000


def test_a_node_that_the_library_does_not_know_is_named(told: Any) -> None:
    error = told["odd.onnx model"]["error"]
    assert error.startswith("TensorRT cannot parse ")
    assert "node 'layer.3/odd' (Frobnicate): INVALID_NODE: " in error


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU here")
def test_a_plan_cannot_be_opened_without_a_gpu(told: Any) -> None:
    for name in ("encoder model", "relu.onnx model"):
        assert told[name]["opened"].startswith(
            "there is no NVIDIA GPU here that can be used ("
        )


def deployment(tmp_path: Path, **options: Any) -> Deployment:
    write_node(tmp_path / "relu.onnx", "Relu", "x", name="relu")
    return Deployment(
        name="m",
        runtime="tensorrt",
        model=str(tmp_path / "relu.onnx"),
        options={"plan_cache": str(tmp_path / "plans"), **options},
    )


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU here")
async def test_a_deployment_without_a_gpu_says_so_before_anything_is_built(
    tmp_path: Path, python: str
) -> None:
    wanted = deployment(tmp_path)
    with pytest.raises(EngineStartError, match="there is no NVIDIA GPU here that can"):
        async with open_bridged_runner(REF, wanted, RunnerContext(), python=python):
            raise AssertionError
    assert not (tmp_path / "plans").exists()


@pytest.mark.gpu
async def test_a_plan_runs_on_a_gpu(tmp_path: Path, python: str) -> None:
    wanted = deployment(tmp_path)
    given = np.array([[-1.0, 0.5, 2.0], [3.0, -4.0, 0.0]], np.float32)
    asked = InferRequest(request_id="r", model="m", inputs=(Tensor.of("x", given),))
    for _ in range(2):  # built, and then found
        async with open_bridged_runner(
            REF, wanted, RunnerContext(), python=python
        ) as runner:
            made = await runner.infer(asked)
            assert made.output("y").values() == np.maximum(given, 0).ravel().tolist()
    assert len(list((tmp_path / "plans").glob("*.kept-plan"))) == 1
