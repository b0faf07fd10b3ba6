"""``make engines``: the environments of engines, and the models that they run.

With no argument, all of them; with names, those.  What is there is left alone.
What compiles is made beside what waits for the network; what fails is told at once,
and ends what would follow it, but nothing that is made beside it.  Ctrl-C ends all.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.engines.environments import ENGINES, make, others
from tests.engines.models import CONVERSIONS, Conversion, convert
from tests.engines.running import LOOK_EVERY_S, CommandError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

INTERRUPTED = 130
"""The exit status that a shell gives what Ctrl-C ended."""
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Each ends what was started too, which does not hear the terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is asked for; return the exit status: 0, 1 or INTERRUPTED."""
    known = [*ENGINES, *CONVERSIONS]
    parser = argparse.ArgumentParser(prog="make engines", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    names = parser.parse_args(arguments).names or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"there is no {unknown[0]!r}; known: {', '.join(known)}")
    began = time.monotonic()
    compiled = [name for name in names if name in ENGINES and ENGINES[name].project]
    fetched = [name for name in names if name not in compiled]
    stop = threading.Event()
    with _listening() as heard, ThreadPoolExecutor(max_workers=2) as pool:
        lanes = [pool.submit(_make_all, lane, stop) for lane in (fetched, compiled)]
        while wait(lanes, timeout=LOOK_EVERY_S).not_done:
            if heard:
                stop.set()
    is_made = [lane.result() for lane in lanes]
    if stop.is_set():
        print("make engines: interrupted", file=sys.stderr)
        return INTERRUPTED
    if not all(is_made):
        return 1
    print(f"make engines: done in {time.monotonic() - began:.0f} s")
    return 0


@contextmanager
def _listening() -> Iterator[list[int]]:
    """Give a list to which signals that would end this are added, in their order.

    No exception: it could come while a thread is begun, and leave it.  Who ignores one,
    as ``nohup`` does, goes on to.
    """
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in ENDINGS}
    ours = [number for number in ENDINGS if before[number] is not signal.SIG_IGN]
    for number in ours:
        signal.signal(number, lambda number, _: heard.append(number))
    try:
        yield heard
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _make_all(names: Sequence[str], stop: threading.Event) -> bool:
    """Make one after the other; tell what goes wrong, behind which none is made."""
    try:
        for name in names:
            if stop.is_set():
                return False
            made_of_it: list[Conversion]
            if name in ENGINES:
                print(f"{name}: {make(ENGINES[name], stop=stop)}", flush=True)
                for other in others(ENGINES[name]):
                    print(f"{name}: {other} is another version's; nothing here uses it")
                made_of_it = [c for c in CONVERSIONS.values() if c.engine == name]
            else:
                made_of_it = [CONVERSIONS[name]]
            for conversion in made_of_it:
                print(
                    f"{conversion.name}: {convert(conversion, stop=stop)}", flush=True
                )
    except StoppedError:
        return False
    except (CommandError, OSError) as error:
        print(f"make engines: {error}", file=sys.stderr, flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
