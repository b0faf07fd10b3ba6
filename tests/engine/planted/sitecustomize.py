"""Plants faults in real engines: Python runs this at its start, found on PYTHONPATH.

Where an engine is imported, its own call that computes is wrapped.  The file that
``ATOMR_PLANTED`` names says what becomes of the next such call, of whichever process
takes the file away:

``poison``  it fails as the engine itself does when its device is of no further use
``memory``  its process gets no more memory than it has, and needs some
``stuck``   it never returns, and neither does any that comes later
"""

from __future__ import annotations

import ctypes
import importlib.abc
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

SIGN = Path(os.environ["ATOMR_PLANTED"])
POISON = "CUDA error: an illegal memory access was encountered"
FATAL = -3  # what llama_decode gives, "fatal error"
MUCH = 2**30
STUCK = threading.Event()
NEVER = threading.Event()

Call = Callable[..., Any]


def planted(call: Call, *, poisoned: Call, grow: Call) -> Call:
    """Return an engine's call with what the sign says before it.

    Args:
        call: the engine's own.
        poisoned: what is called in its place, once.
        grow: asks the engine's allocator for more than there is.
    """

    def wrapped(*args: Any, **more: Any) -> Any:
        match _taken():
            case "poison":
                return poisoned()
            case "memory":
                _take_no_more_memory()
            case "stuck":
                STUCK.set()
        if STUCK.is_set():
            # In the thread that the engine steps in: the event loop's goes on.
            NEVER.wait()
        if _without_memory():
            # On a processor an engine has all that it needs from its start, or finds
            # it in what it has let go; on a device its pools grow.
            grow()
        return call(*args, **more)

    return wrapped


def _taken() -> str | None:
    mine = SIGN.with_suffix(f".{os.getpid()}")
    try:
        SIGN.rename(mine)
    except FileNotFoundError:
        return None
    return mine.read_text()


def _take_no_more_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), hard))


def _without_memory() -> bool:
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _growing_in_cpp() -> Call:
    # Here, for afterwards there is no memory for it either.
    new = ctypes.CDLL("libstdc++.so.6")._Znwm
    # Nobody catches what it throws; Rust, too, ends its process for this.
    return lambda: new(ctypes.c_size_t(MUCH))


# --- where each engine computes -------------------------------------------------------


def _onnxruntime(module: Any) -> None:
    def fail() -> None:
        raise RuntimeError(POISON)

    def grow() -> None:
        module.OrtValue.ortvalue_from_shape_and_type([MUCH], numpy.int8)

    numpy = sys.modules["numpy"]
    session = module.Session
    session.run_with_iobinding = planted(
        session.run_with_iobinding, poisoned=fail, grow=grow
    )


def _llama_cpp(module: Any) -> None:
    module.llama_decode = planted(
        module.llama_decode, poisoned=lambda: FATAL, grow=_growing_in_cpp()
    )


class PanicException(BaseException):
    """What a Rust panic looks like: no Exception."""


def _mistralrs(module: Any) -> None:
    def fail() -> None:
        raise PanicException(POISON)

    send, grow = module.Runner.send_chat_completion_request, _growing_in_cpp()

    def sent(*args: Any, **more: Any) -> Iterator[Any]:
        # At once: it is called under a lock, and the iterator is not.
        return met(iter(send(*args, **more)))

    def met(chunks: Iterator[Any]) -> Iterator[Any]:
        following = planted(lambda: next(chunks, None), poisoned=fail, grow=grow)
        while (chunk := following()) is not None:
            yield chunk

    module.Runner.send_chat_completion_request = sent


def _vllm(module: Any) -> None:
    def fail() -> None:
        raise RuntimeError(POISON)

    def grow() -> None:
        torch.empty(MUCH)

    torch = sys.modules["torch"]
    core = module.EngineCore
    core.step = planted(core.step, poisoned=fail, grow=grow)


PLANTS = {
    "onnxruntime.capi.onnxruntime_inference_collection": _onnxruntime,
    "llama_cpp": _llama_cpp,
    "mistralrs": _mistralrs,
    "vllm.v1.engine.core": _vllm,
}


class Planter(importlib.abc.MetaPathFinder):
    """Finds the modules that are planted in, as Python does, and plants."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        plant = PLANTS.get(fullname)
        spec = None if plant is None else PathFinder.find_spec(fullname, path, target)
        if plant is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            plant(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign] # the one of this module
        return spec


sys.meta_path.insert(0, Planter())
