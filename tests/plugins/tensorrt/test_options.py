"""What a deployment on TensorRT may say, and what it is told when it is wrong."""

from __future__ import annotations

import pytest

from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.runtimes.by_model import Fit, Machine
from atomr_infer_ort.options import Pooling
from atomr_infer_tensorrt.options import Library, Options, parse_options
from atomr_infer_tensorrt.plugin import PLUGIN
from atomr_infer_tensorrt.recipe import Precision
from atomr_infer_tensorrt.shapes import Range


def deployment(
    options: dict[str, OptionValue] | None = None, *, model: str | None = "/m"
) -> Deployment:
    return Deployment(name="d", runtime="tensorrt", model=model, options=options or {})


def test_defaults() -> None:
    assert parse_options(deployment()) == Options(source="/m")


def test_every_option() -> None:
    said: dict[str, OptionValue] = {
        "file": "onnx/model.onnx",
        "library": "tensorrt_rtx",
        "device": 1,
        "precision": "fp8",
        "profiles": [{"x": {"least": [1, 3], "usual": [8, 3], "most": [32, 3]}}],
        "tensors": True,
        "max_batch": 64,
        "join_requests": True,
        "contexts": 3,
        "workspace_mib": 512,
        "optimization_level": 5,
        "plan_cache": "/plans",
        "plan_cache_gib": 7,
        "pooling": "cls",
        "batch_tokens": 2048,
        "context_tokens": 256,
        "max_seqs": 4,
        "prefill_tokens": 128,
        "cache_tokens": 10_000,
    }
    assert parse_options(deployment(said)) == Options(
        source="/m",
        file="onnx/model.onnx",
        library=Library.TENSORRT_RTX,
        device=1,
        precision=Precision.FP8,
        profiles=({"x": Range((1, 3), (8, 3), (32, 3))},),
        tensors=True,
        max_batch=64,
        join_requests=True,
        contexts=3,
        workspace_mib=512,
        optimization_level=5,
        plan_cache="/plans",
        plan_cache_gib=7,
        pooling=Pooling.CLS,
        batch_tokens=2048,
        context_tokens=256,
        max_seqs=4,
        prefill_tokens=128,
        cache_tokens=10_000,
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"precison": "fp16"}, "has no option 'precison'; did you mean 'precision'?"),
        ({"precision": "int4"}, "precision is 'int4'; give one of 'model', 'fp16'"),
        ({"contexts": 0}, "contexts is 0; give a whole number from 1 to 64"),
        ({"device": True}, "device is True; give a whole number"),
        ({"join_requests": 1}, "join_requests is 1; give true or false"),
        ({"file": "/abs/model.onnx"}, "give a file inside the model's directory"),
        ({"file": "model.bin"}, r"directory: .onnx, .plan, .engine, .trt"),
        ({"profiles": []}, "give an array of tables"),
        ({"profiles": [{}]}, "give a table for each profile"),
        (
            {"profiles": [{"x": {"least": [1], "most": [2]}}]},
            "'x' needs least, usual and most, and no more",
        ),
        (
            {"profiles": [{"x": {"least": [1], "usual": [True], "most": [2]}}]},
            "usual of 'x' must be an array of numbers",
        ),
        (
            {"profiles": [{"x": {"least": [4], "usual": [2], "most": [8]}}]},
            "'x': a dimension is 4, 2, 8; least, usual and most must be in this order",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_told(options: dict[str, OptionValue], problem: str) -> None:
    with pytest.raises(ConfigError, match="deployment 'd': ") as caught:
        parse_options(deployment(options))
    assert problem in str(caught.value)


def test_a_model_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"tensorrt needs a model: a \.plan or"):
        parse_options(deployment(model=None))


@pytest.mark.parametrize("model", ["/m/resnet.plan", "/m/resnet.ENGINE"])
def test_a_plan_is_not_built_in_another_way(model: str) -> None:
    with pytest.raises(ConfigError, match="precision is about building a plan"):
        parse_options(deployment({"precision": "fp16"}, model=model))


def test_the_runtime_takes_plans_by_their_name() -> None:
    assert PLUGIN.suits("/m/resnet.plan", Machine()) == Fit(50, "it runs a plan")
    assert PLUGIN.suits("/m/resnet.onnx", Machine(has_gpu=True)) is None
