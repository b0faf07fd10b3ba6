"""In vLLM's workers: says how many bytes of the weights have been read.

vLLM imports this module in each of its workers, as that of a worker's extension, before
the worker loads anything.  Its loader's weights are then counted as they pass, and the
process above hears of it over a datagram socket.  Where nobody listens any more, or
another loader reads them, nothing is said, and nothing else changes.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTENER = "ATOMR_INFER_VLLM_LISTENER"
"""The variable with the socket's path."""

EXTENSION = "atomr_infer_vllm.telling.Extension"

NEWS = struct.Struct("!QQ?")
"""Which process, how many bytes, and whether that is all of them."""

TELL_EVERY_S = 0.2


class Extension:
    """Adds nothing to a worker: vLLM imports its module for it."""


def count_weights(loader: Any, listener: str) -> None:  # noqa: ANN401  vLLM's class
    """Have a loader's weights counted as they pass.

    Args:
        loader: the class that reads them; one that reads them in another way is left
            as it is.
        listener: the socket's path.
    """
    reads = getattr(loader, "get_all_weights", None)
    if reads is None:
        return

    def counted(*given: object, **named: object) -> Iterator[tuple[str, Any]]:
        teller = _Teller(listener)
        for name, tensor in reads(*given, **named):
            teller.count(tensor.nbytes)
            yield name, tensor
        teller.tell(is_all=True)

    loader.get_all_weights = counted


class _Teller:
    def __init__(self, listener: str) -> None:
        self._listener = listener
        self._bytes = 0
        self._tell_at = time.monotonic()

    def count(self, size: int) -> None:
        self._bytes += size
        if time.monotonic() >= self._tell_at:
            self._tell_at = time.monotonic() + TELL_EVERY_S
            self.tell(is_all=False)

    def tell(self, *, is_all: bool) -> None:
        news = NEWS.pack(os.getpid(), self._bytes, is_all)
        # The start is over and nobody listens, or has no time: it is news only.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(news, socket.MSG_DONTWAIT, self._listener)


def _in_a_worker() -> None:
    listener = os.environ.get(LISTENER)
    if listener is None:
        return
    try:
        from vllm.model_executor.model_loader.default_loader import (  # noqa: PLC0415
            DefaultModelLoader,
        )
    except ImportError:
        return  # this vLLM has it elsewhere
    count_weights(DefaultModelLoader, listener)


_in_a_worker()
