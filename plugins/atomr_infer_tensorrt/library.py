"""TensorRT, or TensorRT-RTX: two libraries with the same classes.

``tensorrt`` is the one for data centres: it builds for the GPU that it is built on.
``tensorrt_rtx`` is for GeForce and RTX cards: it builds without a GPU, for all of those
cards, and finishes the kernels on the card.  Both build strongly typed networks: what
is computed in what precision, the model's file says.

Neither has types, nor raises where it fails: it logs, and answers with None or False.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from atomr_infer.errors import EngineStartError
from atomr_infer.model.tensors import Datatype
from atomr_infer_tensorrt.faults import Said, library_missing, open_error, run_error
from atomr_infer_tensorrt.options import Library
from atomr_infer_tensorrt.plan import Binding, Identity
from atomr_infer_tensorrt.shapes import Range

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from atomr_infer.runtimes.contract import Progress
    from atomr_infer_tensorrt.cuda import CudaDevice
    from atomr_infer_tensorrt.plan import Stream
    from atomr_infer_tensorrt.recipe import Recipe
    from atomr_infer_tensorrt.shapes import Profile, Shape

_log = logging.getLogger(__name__)

DATATYPES = {
    "FLOAT": Datatype.FP32,
    "HALF": Datatype.FP16,
    "BF16": Datatype.BF16,
    "INT64": Datatype.INT64,
    "INT32": Datatype.INT32,
    "INT8": Datatype.INT8,
    "UINT8": Datatype.UINT8,
    "BOOL": Datatype.BOOL,
}
"""What the library calls the elements that requests can carry."""


def import_library(wanted: Library) -> ModuleType:
    """Return the library.

    Raises:
        ConfigError: it cannot be imported; says why.
    """
    names = ["tensorrt", "tensorrt_rtx"] if wanted is Library.AUTO else [wanted.value]
    problems = []
    for name in names:
        try:
            return importlib.import_module(name)
        # A missing shared library is an OSError or a FileNotFoundError.
        except (ImportError, OSError) as error:
            problems.append(f"{name}: {error}")
    raise library_missing(problems)


class TensorRT:
    """The library with a GPU; see :class:`~atomr_infer_tensorrt.plan.Backend`.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        device: the GPU.
    """

    def __init__(self, module: ModuleType, device: CudaDevice) -> None:
        self._module: Any = module
        self._said = Said()
        self._logger = logger_of(module, self._said)
        self.device = device
        self.identity = identity_of(module, device.name)

    def build(
        self, model: Path, recipe: Recipe, report: Callable[[Progress], None]
    ) -> bytes:
        """Return the plan of an ONNX file.

        Raises:
            EngineStartError: it cannot be parsed or built.
        """
        # It imports what only building needs.
        from atomr_infer_tensorrt.building import build_plan  # noqa: PLC0415

        self.device.use()
        return build_plan(self._module, model, recipe, report)

    def open(self, plan: bytes, name: str) -> LibraryPlan:
        """Return a plan that can be run.

        Raises:
            EngineStartError: it was built for another version or device, is none,
                or has an input or output that requests cannot carry.
        """
        self.device.use()
        return open_plan(self._module, plan, name)


def open_plan(module: Any, plan: bytes, name: str) -> LibraryPlan:  # noqa: ANN401  no types
    """Return a plan that can be run, on this thread's GPU.

    Raises:
        EngineStartError: as :meth:`TensorRT.open`.
    """
    said = Said()
    runtime = module.Runtime(logger_of(module, said))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise open_error(name, said, _reasons(module, runtime, plan))
    return LibraryPlan(runtime, engine, said, name)


def _reasons(module: Any, runtime: Any, plan: bytes) -> list[str]:  # noqa: ANN401  as above
    """Return what the library calls the failure; ``tensorrt`` does not say."""
    ask = getattr(runtime, "get_engine_validity", None)
    if ask is None:
        return []
    _, bits = ask(plan)
    known = module.EngineInvalidityDiagnostics.__members__
    return [name for name, one in known.items() if bits & int(one)]


def identity_of(module: Any, device: str) -> Identity:  # noqa: ANN401  as above
    """Return what a plan depends on beside its model.

    What TensorRT-RTX builds is for all of its cards.
    """
    name = module.__name__
    return Identity(
        library=name,
        version=str(module.__version__),
        device="any" if name == Library.TENSORRT_RTX.value else device,
    )


def logger_of(module: Any, said: Said) -> Any:  # noqa: ANN401  as above
    """Return what the library logs to: the log, and ``said``."""
    severity = module.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.DEBUG,
        severity.VERBOSE: logging.DEBUG,
    }

    class Logger(module.ILogger):  # type: ignore[misc] # the library has no types
        def log(self, level: Any, text: str) -> None:  # noqa: ANN401  as above
            if levels[level] == logging.ERROR:
                said.take(text)
            # What is an error to it, becomes one of ours, which is told once.
            _log.log(min(levels[level], logging.INFO), "%s", text)

    return Logger()


class LibraryPlan:
    """See :class:`~atomr_infer_tensorrt.plan.Plan`."""

    def __init__(self, runtime: Any, engine: Any, said: Said, name: str) -> None:  # noqa: ANN401  as above
        self._runtime = runtime  # it must outlive the engine
        self._engine = engine
        self._said = said
        names = [engine.get_tensor_name(n) for n in range(engine.num_io_tensors)]
        self.bindings = tuple(_binding(engine, one, name) for one in names)
        self.profiles = tuple(
            self._profile(number) for number in range(engine.num_optimization_profiles)
        )

    @property
    def context_bytes(self) -> int:
        """What a context takes of the GPU's memory."""
        return int(self._engine.device_memory_size_v2)

    def _profile(self, number: int) -> Profile:
        profile = {}
        for one in self.bindings:
            if one.is_input:
                shapes = self._engine.get_tensor_profile_shape(one.name, number)
                profile[one.name] = Range(*(tuple(shape) for shape in shapes))
        return profile

    def context(self) -> LibraryContext:
        """Return a new context.

        Raises:
            EngineError: the GPU has no memory for it.
            EngineCrashedError: it failed in another way.
        """
        self._said.forget()
        made = self._engine.create_execution_context()
        if made is None:
            raise run_error(self._said)
        return LibraryContext(made, self._said)


def _binding(engine: Any, name: str, plan: str) -> Binding:  # noqa: ANN401  as above
    kind = engine.get_tensor_dtype(name).name
    if kind not in DATATYPES:
        raise EngineStartError(
            f"the plan {plan!r} has {name!r} as {kind}, which no request can carry"
        )
    return Binding(
        name=name,
        datatype=DATATYPES[kind],
        shape=tuple(engine.get_tensor_shape(name)),
        is_input=engine.get_tensor_mode(name).name == "INPUT",
        on_host=engine.get_tensor_location(name).name == "HOST",
    )


class LibraryContext:
    """See :class:`~atomr_infer_tensorrt.plan.Context`."""

    def __init__(self, context: Any, said: Said) -> None:  # noqa: ANN401  as above
        self._context = context
        self._said = said

    def choose(self, profile: int, stream: Stream) -> None:
        """Use a profile."""
        chosen = self._context.set_optimization_profile_async(profile, stream.handle)
        self._check(done=chosen)
        stream.wait()

    def set_shape(self, name: str, shape: Shape) -> None:
        """Say the shape of an input."""
        self._check(done=self._context.set_input_shape(name, shape))

    def bind(self, name: str, address: int) -> None:
        """Say where an input or output is."""
        self._check(done=self._context.set_tensor_address(name, address))

    def shape_of(self, name: str) -> Shape:
        """Return an output's shape."""
        return tuple(self._context.get_tensor_shape(name))

    def enqueue(self, stream: Stream) -> None:
        """Begin a run."""
        self._check(done=self._context.execute_async_v3(stream.handle))

    def _check(self, *, done: bool) -> None:
        if not done:
            error = run_error(self._said)
            self._said.forget()
            raise error

    def close(self) -> None:
        """Give its memory back."""
        self._context = None
