"""``make engines``: the environments of engines, and the models that they run.

With no argument, all of them; with names, those.  What is there is left alone.
What compiles is made beside what waits for the network.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.engines.environments import ENGINES, make, others
from tests.engines.models import CONVERSIONS, Conversion, convert
from tests.engines.running import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is asked for; return the exit status."""
    known = [*ENGINES, *CONVERSIONS]
    parser = argparse.ArgumentParser(prog="make engines", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    names = parser.parse_args(arguments).names or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"there is no {unknown[0]!r}; known: {', '.join(known)}")
    began = time.monotonic()
    compiled = [name for name in names if name in ENGINES and ENGINES[name].compiles]
    fetched = [name for name in names if name not in compiled]
    with ThreadPoolExecutor(max_workers=2) as pool:
        errors = [error for error in pool.map(_make_all, (fetched, compiled)) if error]
    for error in errors:
        print(f"make engines: {error}", file=sys.stderr)
    if errors:
        return 1
    print(f"make engines: done in {time.monotonic() - began:.0f} s")
    return 0


def _make_all(names: Sequence[str]) -> CommandError | None:
    """Make one after the other; return what went wrong, behind which none is made."""
    try:
        for name in names:
            made_of_it: list[Conversion]
            if name in ENGINES:
                print(f"{name}: {make(ENGINES[name])}", flush=True)
                for other in others(ENGINES[name]):
                    print(f"{name}: {other} is another version's; nothing here uses it")
                made_of_it = [c for c in CONVERSIONS.values() if c.engine == name]
            else:
                made_of_it = [CONVERSIONS[name]]
            for conversion in made_of_it:
                print(f"{conversion.name}: {convert(conversion)}", flush=True)
    except CommandError as error:
        return error
    return None


if __name__ == "__main__":
    sys.exit(main())
