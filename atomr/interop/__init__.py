"""What is not made of processes, as processes: threads, asyncio, ``async with``.

Each is supervised like any other child: its error is an exit reason, a stop
asks it and waits for it, and nothing of it is left.
"""

from atomr.interop import from_thread
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
    "Blocking",
    "ContextProcess",
    "ServiceProcess",
    "ThreadRef",
    "ThreadServer",
    "abandoned_threads",
    "call_blocking",
    "from_thread",
    "open_service_nursery",
    "value_of",
]
