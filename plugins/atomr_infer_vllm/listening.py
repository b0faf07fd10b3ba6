"""Hearing from vLLM's workers how far they have loaded (:mod:`.telling`)."""

from __future__ import annotations

import os
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from trio import socket

from atomr_infer.runtimes.contract import Progress
from atomr_infer_vllm.telling import LISTENER, NEWS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@asynccontextmanager
async def listening(
    report: Callable[[Progress], None], total: int | None
) -> AsyncIterator[None]:
    """Report what the workers say that are started in the block.

    Args:
        report: told of it, from the trio thread.
        total: bytes of the weights; None: not known.
    """
    with tempfile.TemporaryDirectory(prefix="atomr-infer-") as folder:
        path = str(Path(folder) / "news")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            await heard.bind(path)
            os.environ[LISTENER] = path
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_report, heard, report, total)
                    yield
                    nursery.cancel_scope.cancel()
            except BaseExceptionGroup as group:
                # The nursery is ours alone: what the block raised must leave it bare.
                if len(group.exceptions) == 1:
                    raise group.exceptions[0] from group.exceptions[0].__cause__
                raise
            finally:
                del os.environ[LISTENER]


async def _report(
    heard: socket.SocketType, report: Callable[[Progress], None], total: int | None
) -> None:
    # Each worker of a model that is spread reads all of it.
    most, loading = 0, set[int]()
    while True:
        worker, done, is_all = NEWS.unpack(await heard.recv(NEWS.size))
        loading.add(worker)
        most = max(most, done)
        if is_all:
            loading.discard(worker)
        if not loading:
            report(Progress("warming up"))
            continue
        shown = most if total is None else min(most, total)
        report(Progress("loading the weights", shown, total))
