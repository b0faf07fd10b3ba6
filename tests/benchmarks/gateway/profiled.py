"""``atomr-infer`` under a profiler that is switched on and off from outside.

    profiled.py FILE ARGUMENTS

SIGUSR1 switches it on; SIGUSR2 switches it off and writes FILE.  So the start, which
is most of what a short run does, is not in it.
"""

from __future__ import annotations

import cProfile
import os
import re
import signal
import sys
import time
from collections import Counter
from pstats import Stats
from typing import TYPE_CHECKING, Any

from atomr_infer.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

# The first that matches names the part.
_PARTS = (
    ("gateway: HTTP/1.1", r"atomr_infer/gateway/(http1/|listener|lanes|exchange)"),
    ("gateway: routes and answers", r"atomr_infer/gateway/"),
    ("formats: requests and answers", r"atomr_infer/(wire|model)/"),
    ("serving: plan, permit, delivery", r"atomr_infer/(serving|policy|runtimes)/"),
    ("processes", r"/atomr/"),
    ("upstream: plugin, session, HTTP", r"atomr_infer/remote/|atomr_infer_\w+/"),
    ("trio", r"/(trio|outcome)/|attrs generated methods (trio|outcome)|contextlib"),
    ("log", r"/logging/|atomr_infer/cli/"),
    ("others", r""),
)


def parts(file: Path) -> tuple[int, list[tuple[str, float, float]]]:
    """Return the requests in a profile, and calls and seconds of each part.

    What is written in C counts where it is called from.
    """
    calls: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    requests = 0
    statistics: dict[tuple[str, int, str], Any] = Stats(str(file)).stats  # type: ignore[attr-defined]
    for (path, _, name), (_, count, own_s, _, callers) in statistics.items():
        if name == "_found":  # once for each head
            requests = count
        if path != "~":
            calls[_part(path)] += count
            seconds[_part(path)] += own_s
            continue
        for (caller, _, _), (_, by_caller, caller_s, _) in callers.items():
            calls[_part(caller)] += by_caller
            seconds[_part(caller)] += caller_s
    return requests, [(name, calls[name], seconds[name]) for name, _ in _PARTS]


def _part(path: str) -> str:
    return next(name for name, pattern in _PARTS if re.search(pattern, path))


def _run(file: str) -> None:
    # Of this process only: it is switched away from in the middle of a write.
    profile = cProfile.Profile(time.process_time)

    def stop(*_: object) -> None:
        profile.disable()
        profile.dump_stats(f"{file}.part")
        os.rename(f"{file}.part", file)

    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    signal.signal(signal.SIGUSR2, stop)
    main()


if __name__ == "__main__":
    path = sys.argv.pop(1)
    _run(path)
