"""A model that can be told how to die, once: it leaves a file behind as a sign."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import trio
import trio.lowlevel

from atomr_infer.errors import EngineCrashedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer_python import Request

_MIB = 2**20


def die(how: str) -> None:
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "memory":
            take_all_memory()
        case "poison":
            raise EngineCrashedError("CUDA error: an illegal memory access")


def take_all_memory() -> None:
    """Run out of memory as an engine in C++ does: nobody catches it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 64 * _MIB
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    try:
        bytearray(1024 * _MIB)
    except MemoryError:
        os.abort()


async def answer(request: Request, *, sign: str) -> AsyncIterator[str]:
    """Die as the request says; ``talk`` begins before that, ``wait`` does not."""
    how = request.text
    died = Path(sign)
    if how == "talk":
        yield "so far "
    if how in {"talk", "wait"}:
        while not died.exists():  # noqa: ASYNC110, ASYNC240 - the sign is a file
            await trio.sleep(0.01)
    elif not died.exists():  # noqa: ASYNC240 - as above
        died.touch()  # noqa: ASYNC240 - as above
        die(how)
    await trio.lowlevel.checkpoint()
    yield "so good"
