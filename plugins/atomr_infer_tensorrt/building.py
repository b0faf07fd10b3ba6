"""ONNX to plan.

The network is strongly typed: a precision other than the model's own is written into
the model first (:mod:`~atomr_infer_tensorrt.precision`).

Blocks for as long as it takes: seconds with TensorRT-RTX, minutes with TensorRT, which
tries each kernel on the GPU.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomr_infer.runtimes.contract import Progress
from atomr_infer_tensorrt.faults import NodeFault, Said, build_error, parse_error
from atomr_infer_tensorrt.library import logger_of
from atomr_infer_tensorrt.precision import write_with_precision
from atomr_infer_tensorrt.recipe import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer_tensorrt.recipe import Recipe
    from atomr_infer_tensorrt.shapes import Profile

    Report = Callable[[Progress], None]

_MIB = 2**20


def build_plan(module: Any, model: Path, recipe: Recipe, report: Report) -> bytes:  # noqa: ANN401  the library has no types
    """Return the plan of an ONNX file.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        model: the file.
        recipe: how.
        report: told how far it is.

    Raises:
        EngineStartError: it cannot be parsed or built, or has nothing that a
            precision could be written into.
    """
    if recipe.precision is Precision.MODEL:
        return _build(module, model, recipe, report, told=model)
    # Beside the model there may be no room, and nobody allowed to write.
    with tempfile.TemporaryDirectory(prefix="atomr-infer-") as folder:
        report(Progress(f"rewriting the model as {recipe.precision.value}"))
        rewritten = Path(folder) / model.name
        write_with_precision(model, rewritten, recipe.precision)
        return _build(module, rewritten, recipe, report, told=model)


def _build(
    module: Any,  # noqa: ANN401  as above
    file: Path,
    recipe: Recipe,
    report: Report,
    *,
    told: Path,
) -> bytes:
    said = Said()
    logger = logger_of(module, said)
    builder = module.Builder(logger)
    typed = 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = module.OnnxParser(network, logger)
    report(Progress("parsing the model"))
    # By its path, so that weights beside it are found.
    if not parser.parse_from_file(str(file)):
        raise parse_error(str(told), faults_of(parser))
    config = _config(module, builder, recipe, report)
    for profile in recipe.profiles:
        _add_profile(builder, config, profile)
    said.forget()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise build_error(str(told), said)
    return bytes(plan)


def faults_of(parser: Any) -> list[NodeFault]:  # noqa: ANN401  as above
    """Return what the parser did not take."""
    found = [parser.get_error(number) for number in range(parser.num_errors)]
    return [
        NodeFault(
            one.code().name,
            one.node_name(),
            one.node_operator(),
            one.desc(),
            one.node(),
        )
        for one in found
    ]


def _config(module: Any, builder: Any, recipe: Recipe, report: Report) -> Any:  # noqa: ANN401  as above
    config = builder.create_builder_config()
    config.progress_monitor = _monitor(module, report)
    if recipe.workspace_mib is not None:
        config.set_memory_pool_limit(
            module.MemoryPoolType.WORKSPACE, recipe.workspace_mib * _MIB
        )
    if recipe.optimization_level is not None:
        config.builder_optimization_level = recipe.optimization_level
    return config


def _add_profile(builder: Any, config: Any, profile: Profile) -> None:  # noqa: ANN401  as above
    made = builder.create_optimization_profile()
    for name, span in profile.items():
        made.set_shape(name, span.least, span.usual, span.most)
    config.add_optimization_profile(made)


def _monitor(module: Any, report: Report) -> Any:  # noqa: ANN401  as above
    """Return what is told of the builder's phases: those of the first two levels."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc] # as above
        def __init__(self) -> None:
            super().__init__()
            self._depth: dict[str, int] = {}
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._depth[name] = 0 if parent is None else self._depth.get(parent, 0) + 1
            self._steps[name] = steps
            self._tell(name, 0)

        def step_complete(self, name: str, step: int) -> bool:
            self._tell(name, step + 1)
            return True

        def phase_finish(self, name: str) -> None:
            self._depth.pop(name, None)

        def _tell(self, name: str, done: int) -> None:
            if self._depth.get(name, _TOLD_DEPTH) < _TOLD_DEPTH:
                phase = f"building the plan: {name.lower()}"
                report(Progress(phase, done, self._steps[name], unit="steps"))

    return Monitor()


_TOLD_DEPTH = 2
