"""llama.cpp's failures as errors of ours.

The library answers with numbers, and writes the reason to its log, which is the
engine's output.

Pure.
"""

from __future__ import annotations

from atomr_infer.errors import EngineCrashedError, EngineError, InferenceError

CACHE_FULL = "cache_full"
"""The code of an error that came for want of room in the key-value cache, which has the
size that was said; memory is not short."""

NO_SLOT = 1
ABORTED = 2


def decode_error(status: int, said: str = "nothing") -> InferenceError:
    """Return why the sequences of a run ended.

    Args:
        status: what the library returned.
        said: what it logged last.

    >>> decode_error(NO_SLOT).code
    'cache_full'
    """
    if status == NO_SLOT:
        return EngineError(
            "the key-value cache has no room; lower max_seqs or raise cache_tokens",
            code=CACHE_FULL,
        )
    if status == ABORTED:
        return EngineError("the run was stopped")
    return EngineCrashedError(f"llama_decode gave {status}; it said last: {said}")


def step_error(error: Exception) -> InferenceError:
    """Return why a sequence ended by what was raised in a step."""
    if isinstance(error, InferenceError):
        return error
    return EngineCrashedError(f"llama.cpp failed: {type(error).__name__}: {error}")
