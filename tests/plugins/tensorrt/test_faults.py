"""What TensorRT and CUDA say, becomes an error that says what to do."""

from __future__ import annotations

import pytest

from atomr_infer.errors import (
    OUT_OF_MEMORY,
    EngineCrashedError,
    EngineError,
    EngineStartError,
)
from atomr_infer_tensorrt.faults import (
    NodeFault,
    Said,
    build_error,
    cuda_error,
    open_error,
    parse_error,
    run_error,
)

NO_DRIVER = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (In ScopedCudaStream "
    "at /_src/common/cudaResources.cpp:25 (cudaError 35: CUDA driver version is "
    "insufficient for CUDA runtime version))"
)


def said(*lines: str) -> Said:
    made = Said()
    for line in lines:
        made.take(line)
    return made


def test_a_plan_that_cannot_be_opened_without_a_driver_says_so() -> None:
    error = open_error("m.plan", said(NO_DRIVER), ["OLD_CUDA_RUNTIME"])
    assert isinstance(error, EngineStartError)
    assert str(error) == (
        "there is no NVIDIA GPU here that can be used (IRuntime::deserializeCudaEngine:"
        " Error Code 1: Cuda Runtime ((cudaError 35: CUDA driver version is "
        "insufficient for CUDA runtime version))); TensorRT needs one, with its "
        "driver: see what nvidia-smi says, and that a container was given the GPU"
    )


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        (["VERSION_MISMATCH"], "it was built by another version of TensorRT; "),
        (["UNSUPPORTED_CC"], "it was built for another kind of GPU; "),
        (["MALFORMED_ENGINE"], "it is no plan, or is damaged; "),
        ([], ""),
    ],
    ids=str,
)
def test_a_plan_for_another_version_or_gpu_says_that_it_is_to_be_built_anew(
    reasons: list[str], told: str
) -> None:
    error = open_error("m.plan", said("Serialization assertion failed"), reasons)
    assert str(error) == (
        f"TensorRT cannot open the plan 'm.plan': {told}Serialization assertion "
        "failed; a plan works with the version and on the kind of GPU that it was "
        "built for: build it anew"
    )


def test_a_plan_that_cannot_be_opened_in_silence_says_that_it_was_not_said() -> None:
    assert "TensorRT did not say why" in str(open_error("m.plan", said(), []))


def test_nodes_that_cannot_be_parsed_are_named() -> None:
    faults = [
        NodeFault("INVALID_NODE", "layer.3/odd", "Frobnicate", "no\nplugin", 7),
        NodeFault("UNSUPPORTED_NODE", "", "Loop", "no", 9),
        NodeFault("INVALID_VALUE", "", "", "no graph"),
    ]
    assert str(parse_error("m.onnx", faults)) == (
        "TensorRT cannot parse 'm.onnx': node 'layer.3/odd' (Frobnicate): "
        "INVALID_NODE: no plugin; node number 9 (Loop): UNSUPPORTED_NODE: no; "
        "INVALID_VALUE: no graph"
    )


def test_the_first_error_of_a_build_is_its_reason() -> None:
    lines = ("Error Code 4: no profile. In validate at /_src/n.cpp:4023", "and so on")
    error = build_error("m.onnx", said(*lines))
    assert str(error) == (
        "TensorRT cannot build a plan of 'm.onnx': Error Code 4: no profile."
    )


@pytest.mark.parametrize(
    "error",
    [
        build_error("m", said("Error Code 2: OutOfMemory (Requested size was 9)")),
        open_error("m", said("out of memory"), []),
        run_error(said("OutOfMemory")),
        cuda_error("copying", "cudaErrorMemoryAllocation", "out of memory"),
    ],
    ids=["build", "open", "run", "cuda"],
)
def test_want_of_memory_has_its_code(error: EngineError) -> None:
    assert error.code == OUT_OF_MEMORY
    assert not isinstance(error, EngineCrashedError)


def test_any_other_failure_ends_the_engine() -> None:
    error = cuda_error("running the plan", "cudaErrorIllegalAddress", "illegal")
    assert isinstance(error, EngineCrashedError)
    assert str(error) == (
        "CUDA failed while running the plan: cudaErrorIllegalAddress: illegal"
    )
    assert isinstance(run_error(said("Error Code 1: Cuda Runtime")), EngineCrashedError)


def test_what_was_said_before_is_forgotten() -> None:
    kept = said("old")
    kept.forget()
    kept.take("new")
    assert kept.why() == "new"
