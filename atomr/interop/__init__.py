"""What is not made of processes, as processes: threads, asyncio, ``async with``.

Each is supervised like any other child: its error is an exit reason, a stop
asks it and waits for it, and nothing of it is left.
"""

from atomr.interop import from_thread
from atomr.interop.asyncio_calls import AsyncioRef, call_asyncio, stream_asyncio
from atomr.interop.asyncio_process import AsyncioProcess
from atomr.interop.blocking import Blocking
from atomr.interop.context_process import (
    ContextProcess,
    ServiceProcess,
    open_service_nursery,
    value_of,
)
from atomr.interop.thread_server import ThreadRef, ThreadServer, call_blocking
from atomr.interop.threads import AbandonedThread, abandoned_threads

__all__ = [
    "AbandonedThread",
    "AsyncioProcess",
    "AsyncioRef",
    "Blocking",
    "ContextProcess",
    "ServiceProcess",
    "ThreadRef",
    "ThreadServer",
    "abandoned_threads",
    "call_asyncio",
    "call_blocking",
    "from_thread",
    "open_service_nursery",
    "stream_asyncio",
    "value_of",
]
