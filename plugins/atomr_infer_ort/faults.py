"""ONNX Runtime's errors as ours.

The engine's exceptions are classes of its C extension, told apart by name, and
their text is all they carry.  What is not known is taken for the end of the
engine: after a failed kernel, a GPU's context may be of no further use.

Pure.
"""

from __future__ import annotations

import re

from atomr_infer.errors import (
    OUT_OF_MEMORY,
    ConfigError,
    EngineCrashedError,
    EngineError,
    EngineStartError,
    InferenceError,
)

_NO_MEMORY = re.compile(
    r"bad_?alloc|failed to allocate memory|out of memory|available memory of",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was wanted that is not there.

    >>> is_out_of_memory(RuntimeError("BFCArena: Failed to allocate memory for x"))
    True
    """
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def step_error(error: Exception) -> InferenceError:
    """Return why the sequences of a step ended."""
    if isinstance(error, InferenceError):
        return error
    if is_out_of_memory(error):
        return EngineError(
            f"the engine is out of memory: {first_line(error)}; "
            "lower max_seqs or cache_tokens",
            code=OUT_OF_MEMORY,
        )
    return EngineCrashedError(f"ONNX Runtime failed: {first_line(error)}")


def load_error(path: str, error: Exception) -> ConfigError | EngineStartError:
    """Return why a model cannot be loaded."""
    kind = type(error).__name__
    if kind == "NoSuchFile":
        return ConfigError(f"a file of the model {path!r} is missing: {error}")
    if is_out_of_memory(error):
        return EngineStartError(
            f"the model {path!r} does not fit into memory: {first_line(error)}",
            code=OUT_OF_MEMORY,
        )
    return EngineStartError(
        f"ONNX Runtime cannot load {path!r}: {kind}: {first_line(error)}"
    )


def first_line(error: BaseException) -> str:
    """Return an error's text without what stands below its first line."""
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__
