"""What each peer measures, and how it says so.

A peer is a script of its own in this folder.  ``python with_NAME.py times`` prints
one line of JSON with the microseconds, ``python with_NAME.py idle`` one with the
bytes; ``null`` is what the library cannot do.  The counts are the same for all, but
where a script says why not.

| field | is |
|---|---|
| call | a request and its reply; one caller, and a server that has nothing to do |
| callers | the same for each call of a hundred callers at once |
| cast | a message without reply, until it is handled |
| spawn | a server is started, is ready, is stopped and is gone; one after the other |
| ring | a message from one server to the next, in a ring of a hundred |
| restart | a server crashes, is started again by its supervisor, and has answered |
| idle | growth of the resident set for each server that does nothing |
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Found: TypeAlias = dict[str, float | None]

CALLS = 5_000
CALLERS = 100
CASTS = 20_000
SPAWNS = 500
RING = 100
HOPS = 10_000
RESTARTS = 200
IDLE = 10_000


def us_each(began: float, count: int) -> float:
    """Return microseconds per operation since ``began``."""
    return (time.perf_counter() - began) / count * 1e6


def resident_bytes() -> int:
    gc.collect()
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def show(package: str, times: Callable[[], Found], idle: Callable[[], Found]) -> None:
    """Measure what the last argument names, and print one line of JSON."""
    # A report of each crash would be most of what is measured.
    logging.disable()
    found = {"times": times, "idle": idle}[sys.argv[-1]]()
    release = f"{package} {version(package)}" if package else "standard library"
    python = ".".join(map(str, sys.version_info[:3]))
    print(json.dumps({"release": f"{release}, Python {python}", **found}))
