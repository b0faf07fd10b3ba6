"""TensorRT's and CUDA's failures as ours.

TensorRT says in its log why something failed, and answers with None or False: the
last lines that are errors are what an error of ours says.

Pure.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import (
    OUT_OF_MEMORY,
    ConfigError,
    EngineCrashedError,
    EngineError,
    EngineStartError,
    InferenceError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_NO_MEMORY = re.compile(
    r"out ?of ?memory|cudaErrorMemoryAllocation|insufficient memory|bad_alloc",
    re.IGNORECASE,
)
_NO_DRIVER = re.compile(r"cudaError 35|InsufficientDriver|driver version is insuff")
_KEPT_LINES = 20
_TOLD = 400

# Where in TensorRT's own source it failed is nothing to an operator.
_PLACE = re.compile(r"\s*\bIn [\w:]+ at \S+?:\d+:?\s*|\[\S+::\d+\]\s*")


def plain(text: str) -> str:
    """Return what TensorRT says, without where in its source it says it.

    >>> plain("Cuda Runtime (In x at /src/y.cpp:25 (cudaError 35: no driver))")
    'Cuda Runtime ((cudaError 35: no driver))'
    """
    return " ".join(_PLACE.sub("", text).split())[:_TOLD]


@attrs.define
class Said:
    """The last errors in TensorRT's log."""

    lines: deque[str] = attrs.field(factory=lambda: deque(maxlen=_KEPT_LINES))

    def take(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)

    def forget(self) -> None:
        """Drop what was said before."""
        self.lines.clear()

    def why(self) -> str:
        """Return the first error since :meth:`forget`, which the others follow from.

        >>> said = Said()
        >>> said.take("Error Code 4: no profile. In validate at /src/network.cpp:4023")
        >>> said.why()
        'Error Code 4: no profile.'
        """
        for line in self.lines:
            text = plain(line)
            if text:
                return text
        return "TensorRT did not say why"

    def all(self) -> str:
        """Return all of them."""
        return "\n".join(self.lines)


@attrs.frozen
class NodeFault:
    """A node that the parser of ONNX did not take.

    Attributes:
        code: the parser's code: ``INVALID_NODE``.
        node: the node's name in the file; it may be empty.
        operator: what the node is: ``MatMul``.
        problem: what the parser says.
        file_position: which node of the file it is, from 0; negative: none.
    """

    code: str
    node: str
    operator: str
    problem: str
    file_position: int = -1

    def __str__(self) -> str:
        """As an error says it.

        >>> str(NodeFault("INVALID_NODE", "layer.3/odd", "Frobnicate", "no plugin", 7))
        "node 'layer.3/odd' (Frobnicate): INVALID_NODE: no plugin"
        """
        if self.node or self.operator:
            name = repr(self.node) if self.node else f"number {self.file_position}"
            where = f"node {name} ({self.operator}): "
        else:
            where = ""
        return f"{where}{self.code}: {plain(self.problem)}"


def parse_error(path: str, faults: Iterable[NodeFault]) -> EngineStartError:
    """Return why a model cannot be parsed."""
    told = "; ".join(map(str, faults)) or "the parser does not say why"
    return EngineStartError(f"TensorRT cannot parse {path!r}: {told}")


def build_error(path: str, said: Said) -> EngineStartError:
    """Return why a plan cannot be built."""
    if _NO_MEMORY.search(said.all()):
        return EngineStartError(
            f"there is not enough memory to build a plan of {path!r}: {said.why()}; "
            "lower workspace_mib, max_batch or the profiles",
            code=OUT_OF_MEMORY,
        )
    return EngineStartError(f"TensorRT cannot build a plan of {path!r}: {said.why()}")


def open_error(path: str, said: Said, reasons: Iterable[str]) -> EngineStartError:
    """Return why a plan cannot be opened.

    Args:
        path: the plan.
        said: TensorRT's log.
        reasons: what the library itself calls it, such as ``VERSION_MISMATCH``.
    """
    if _NO_DRIVER.search(said.all()):
        return no_driver(said.why())
    if _NO_MEMORY.search(said.all()):
        return EngineStartError(
            f"the plan {path!r} does not fit into the GPU's memory: {said.why()}",
            code=OUT_OF_MEMORY,
        )
    named = [_REASONS[reason] for reason in reasons if reason in _REASONS]
    told = "; ".join([*named, said.why()])
    return EngineStartError(
        f"TensorRT cannot open the plan {path!r}: {told}; a plan works with the "
        "version and on the kind of GPU that it was built for: build it anew"
    )


_REASONS = {
    "VERSION_MISMATCH": "it was built by another version of TensorRT",
    "UNSUPPORTED_CC": "it was built for another kind of GPU",
    "OLD_CUDA_DRIVER": "the GPU's driver is too old for it",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory for it",
    "MALFORMED_ENGINE": "it is no plan, or is damaged",
}


def no_driver(detail: str) -> EngineStartError:
    """Return that there is no GPU that can be used."""
    return EngineStartError(
        f"there is no NVIDIA GPU here that can be used ({detail}); TensorRT "
        "needs one, with its driver: see what nvidia-smi says, and that a container "
        "was given the GPU"
    )


def library_missing(problems: Iterable[str]) -> ConfigError:
    """Return that neither library can be imported."""
    return ConfigError(
        f"neither tensorrt nor tensorrt_rtx can be imported ({'; '.join(problems)}); "
        "run: pip install 'atomr-infer[tensorrt]', or 'atomr-infer[tensorrt-rtx]' for "
        "GeForce and RTX cards"
    )


def cuda_error(doing: str, name: str, text: str) -> InferenceError:
    """Return a failed call of CUDA's as ours.

    After any other failure than the want of memory, the process's context on the GPU
    may be of no further use.
    """
    if name == "cudaErrorMemoryAllocation":
        return EngineError(
            f"the GPU is out of memory while {doing}; lower contexts, max_batch or "
            "cache_tokens",
            code=OUT_OF_MEMORY,
        )
    return EngineCrashedError(f"CUDA failed while {doing}: {name}: {text}")


def run_error(said: Said) -> InferenceError:
    """Return why a run failed."""
    if _NO_MEMORY.search(said.all()):
        return EngineError(
            f"the GPU is out of memory: {said.why()}; lower contexts, max_batch or "
            "cache_tokens",
            code=OUT_OF_MEMORY,
        )
    return EngineCrashedError(f"TensorRT failed: {said.why()}")
