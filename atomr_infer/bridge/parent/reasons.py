"""The errors that the parent makes of what a child does, in words.

Each message names the deployment and what happened, for an operator's log and
for a client who can do nothing about it but try elsewhere.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.bridge.protocol.frames import PROTOCOL_VERSION
from atomr_infer.bridge.protocol.values import ErrorWire, error_from_wire
from atomr_infer.errors import (
    OUT_OF_MEMORY,
    EngineCrashedError,
    EngineError,
    EngineHungError,
    EngineStartError,
    InferenceError,
    NotReadyError,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def crashed(name: str, how: str, code: str | None = None) -> EngineCrashedError:
    """The process of a ready engine ended; ``how``, in words, with a code."""
    return EngineCrashedError(
        f"the engine process of deployment {name!r}: {how}", code=code
    )


def died_starting(
    name: str, how: str, doing: str, output: Sequence[str], code: str | None = None
) -> EngineStartError:
    """The process ended before its runner was ready."""
    last = " | ".join(output) or "(nothing)"
    return EngineStartError(
        f"the engine process of deployment {name!r}: {how}, while {doing}; "
        f"its last output: {last}",
        code=code,
    )


def not_ready_in_time(name: str, bound_s: float, doing: str) -> EngineStartError:
    """The runner was not open after ``timeouts.load_s``."""
    return EngineStartError(
        f"deployment {name!r} was not ready after {bound_s:g} s (timeouts.load_s), "
        f"while {doing}; its process was killed"
    )


def cannot_ask(name: str, problem: str) -> EngineStartError:
    """The deployment holds a value that the bridge cannot carry."""
    return EngineStartError(f"deployment {name!r} cannot be sent: {problem}")


def other_protocol(protocol: int) -> EngineStartError:
    """The child runs another version of this package."""
    return EngineStartError(
        "the engine's interpreter has another version of atomr-infer (its bridge "
        f"protocol is {protocol}, ours {PROTOCOL_VERSION}); install the same in both"
    )


def silent(name: str, bound_s: float) -> EngineHungError:
    """No sign of life for ``silent_s``."""
    return EngineHungError(
        f"the engine process of deployment {name!r} did not answer for "
        f"{bound_s:g} s (timeouts.silent_s) and was killed"
    )


def stuck(name: str, bound_s: float, *, tells_steps: bool) -> EngineHungError:
    """Nothing came of an engine that was asked, for ``stuck_s``."""
    what = "made no step" if tells_steps else "told no token"
    return EngineHungError(
        f"the engine of deployment {name!r} has requests and {what} for "
        f"{bound_s:g} s (timeouts.stuck_s); its process was killed"
    )


def did_not_cancel(name: str, bound_s: float) -> EngineHungError:
    """A generation went on after it was cancelled."""
    return EngineHungError(
        f"a cancelled generation of deployment {name!r} went on for {bound_s:g} s; "
        "its process was killed"
    )


def took_too_much(
    name: str, taken_bytes: int, limit_bytes: int, *, starts: bool
) -> EngineError:
    """Its processes have more memory than ``memory_limit_gib``."""
    taken, limit = (f"{size / 2**30:.4g}" for size in (taken_bytes, limit_bytes))
    kind = EngineStartError if starts else EngineCrashedError
    return kind(
        f"the processes of the engine of deployment {name!r} have {taken} GiB of "
        f"memory, and may have {limit} (memory_limit_gib); they were killed",
        code=OUT_OF_MEMORY,
    )


def broke_protocol(name: str, problem: str) -> EngineCrashedError:
    """The child sent what it must not."""
    return EngineCrashedError(
        f"the engine process of deployment {name!r} broke the bridge's protocol and "
        f"was killed: {problem}"
    )


def hung_up(name: str) -> EngineCrashedError:
    """The child closed its socket and lives on."""
    return EngineCrashedError(
        f"the engine process of deployment {name!r} closed its connection and was "
        "killed"
    )


def closed(name: str) -> NotReadyError:
    """The runner's block has been left."""
    return NotReadyError(f"the engine of deployment {name!r} is closed")


def told(error: ErrorWire) -> InferenceError:
    """What the child says of itself or of a stream."""
    return decode(error_from_wire(error))


def told_of_end(error: ErrorWire, why: str | None, *, starts: bool) -> InferenceError:
    """What the child says of its engine's end, and what the kernel says beside it.

    Of a crash alone: others fail for reasons of their own while another engine dies.

    Args:
        error: what it says.
        why: what the kernel says; None: nothing.
        starts: whether the engine has not served yet; its crash is a failed start.
    """
    end = told(error)
    if not isinstance(end, EngineCrashedError):
        return end
    message, code = end.message, end.code
    if why is not None:
        message, code = f"{message}; a process was {why}", OUT_OF_MEMORY
    kind = EngineStartError if starts else EngineCrashedError
    return kind(message, code=code)


def again(error: InferenceError) -> InferenceError:
    """An equal error: one that many tasks raise would mix their tracebacks."""
    return decode(encode(error))
