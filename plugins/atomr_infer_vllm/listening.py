"""Hearing from vLLM's workers how far they have loaded (:mod:`.telling`)."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from trio import socket

from atomr_infer.runtimes.contract import Progress
from atomr_infer_vllm.telling import LISTENER, NEWS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

log = logging.getLogger(__name__)


@asynccontextmanager
async def listening(
    report: Callable[[Progress], None], total: int | None
) -> AsyncIterator[None]:
    """Report what the workers say that are started in the block.

    Where there can be no socket, nothing is reported, which is logged.

    Args:
        report: told of it, from the trio thread.
        total: bytes of the weights; None: not known.
    """
    with ExitStack() as opened:
        heard = await _socket(opened)
        if heard is None:
            yield
            return
        os.environ[LISTENER] = heard.getsockname()
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


async def _socket(opened: ExitStack) -> socket.SocketType | None:
    """Return a socket at a path that others cannot reach; None: there can be none."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="atomr-infer-")
        path = Path(opened.enter_context(folder)) / "news"
        heard = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        await heard.bind(str(path))
    except OSError as error:
        # It is for news only, and vLLM starts without them.
        log.warning(
            "how far the weights are loaded is not shown: no socket for it in TMPDIR "
            "(%s); set TMPDIR to a short path that can be written to",
            error,
        )
        return None
    return heard


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
