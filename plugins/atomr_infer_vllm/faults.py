"""vLLM's errors as ours.

Its classes are told apart by name, so that nothing here imports them.  What the
client did wrong is said with vLLM's words; an engine whose core has died serves no
more, and its context is started anew.

Pure.
"""

from __future__ import annotations

import re
import signal

from atomr_infer.errors import (
    OUT_OF_MEMORY,
    ContextLengthError,
    EngineCrashedError,
    EngineError,
    EngineStartError,
    InferenceError,
    InvalidRequestError,
    OverloadedError,
)

_NO_MEMORY = re.compile(
    r"out of memory|no available memory|not enough memory|cannot allocate memory"
    r"|bad_alloc|larger than the available KV cache|less than desired",
    re.IGNORECASE,
)
_KILLED = re.compile(rf"proc\(s\): {{.*: -{signal.SIGKILL:d}\b")
"""As vLLM's ``wait_for_engine_startup`` lists the processes that ended."""
_TOO_LONG = re.compile(
    r"maximum (?:context|model) length|context length|longer than the maximum",
    re.IGNORECASE,
)


def to_inference_error(error: BaseException) -> InferenceError:
    """Return the error that a client or an operator is told.

    >>> class EngineDeadError(Exception): pass
    >>> to_inference_error(EngineDeadError("x"))
    EngineCrashedError("vLLM's engine core died; the log says why")
    """
    if isinstance(error, InferenceError):
        return error
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = first_line(error)
    if "EngineDeadError" in kinds:
        return EngineCrashedError("vLLM's engine core died; the log says why")
    if "QueueOverflowError" in kinds:
        return OverloadedError(text)
    if kinds & {"VLLMClientError", "ValueError", "TypeError"}:
        return _clients(error, text)
    if _NO_MEMORY.search(text):
        return EngineError(f"vLLM is out of memory: {text}", code=OUT_OF_MEMORY)
    cause = error.__cause__
    why = text if cause is None else first_line(cause)
    return EngineError(f"vLLM failed: {type(error).__name__}: {why}")


def _clients(error: BaseException, text: str) -> InferenceError:
    if _TOO_LONG.search(text):
        return ContextLengthError(
            text, code="context_length_exceeded", param="messages"
        )
    parameter = getattr(error, "parameter", None)
    return InvalidRequestError(
        text, param=parameter if isinstance(parameter, str) else None
    )


def start_error(weights: str, error: BaseException) -> EngineError:
    """Return why an engine did not start; a crash where its core was killed."""
    text = _what_is_wrong(error)
    if _NO_MEMORY.search(str(error)):
        return EngineStartError(
            f"the model {weights!r} does not fit into memory: {text}; lower "
            "context_tokens, max_seqs, or the share of what else runs here",
            code=OUT_OF_MEMORY,
        )
    kind = EngineCrashedError if _KILLED.search(text) else EngineStartError
    return kind(f"vLLM cannot start {weights!r}: {type(error).__name__}: {text}")


def _what_is_wrong(error: BaseException) -> str:
    """Return an error's first line, or what pydantic found, which stands below it."""
    found = getattr(error, "errors", None)
    if type(error).__name__ != "ValidationError" or not callable(found):
        return first_line(error)
    told = []
    for each in found():
        where = ".".join(str(part) for part in each["loc"])
        told.append(f"{where}: {each['msg']}" if where else each["msg"])
    return "; ".join(told)


def first_line(error: BaseException) -> str:
    """Return an error's text without what stands below its first line."""
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__
