"""What the same things cost in other actor libraries, and on the BEAM.

    python tests/benchmarks/bench_peers.py [--python PATH] [ROUNDS]

PATH is an interpreter that has the peers; they are never needed for anything else,
and one of them has our import name, so give them an environment of their own:

    python3.11 -m venv peers
    peers/bin/pip install pykka thespian triotp fauxtp otpylib pytest "atomr>=0.10"

(``atomr`` is the Rust actor runtime's bindings, and imports pytest.)  The BEAM is
measured where ``escript`` is on the path, as Debian's ``erlang-base`` puts it there.
What is not installed is a row that says so.

Each peer is a script in ``peers/`` and runs in a process of its own, the peers in turn
within each round.  ``peers/measure.py`` says what is measured.  Printed are medians of
the rounds, then their ratio to plain trio in the same run: the ratio is comparable
between machines, the microseconds are not.  No two of these libraries promise the
same, so read what the head of a script says before you read its row.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

Found: TypeAlias = dict[str, float | None]

FOLDER = Path(__file__).parent / "peers"
TIMEOUT_S = 20.0
BASELINE = "trio by hand"
HEADINGS = {
    "call": "call",
    "callers": "100 calls",
    "cast": "cast",
    "spawn": "spawn+stop",
    "ring": "ring hop",
    "restart": "restart",
    "idle": "idle bytes",
}


class Peer:
    """One row: how it is run, and what its runs have found so far."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.command = command
        self.release = ""
        self.trouble = ""
        self.rounds: list[Found] = []

    def measure(self, what: str) -> None:
        """Run the script once, unless it has failed before."""
        if self.trouble:
            return
        try:
            found = run([*self.command, what])
        except FailedError as error:
            self.trouble = str(error)
        else:
            self.release = str(found.pop("release"))
            self.rounds.append(found)

    def median(self, field: str) -> float | None:
        values = [found.get(field) for found in self.rounds]
        numbers = [value for value in values if value is not None]
        return statistics.median(numbers) if numbers else None


class FailedError(Exception):
    """A script printed no result."""


def run(command: list[str]) -> dict[str, float | None]:
    """Run one script to its end, and return what it printed.

    Raises:
        FailedError: it is not there, failed or hung; the last line says how.
    """
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            check=True,
            cwd=FOLDER,
            env={**os.environ, "RUST_BACKTRACE": "0"},
            text=True,
            timeout=TIMEOUT_S,
        )
    except FileNotFoundError:
        raise FailedError(f"not installed: no {command[0]} on the path") from None
    except subprocess.TimeoutExpired:
        raise FailedError(f"not done after {TIMEOUT_S:.0f} s") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit {error.returncode}"])[-1]
        missing = last.startswith("ModuleNotFoundError: ")
        raise FailedError(f"not installed: {last}" if missing else last) from error
    result: dict[str, float | None] = json.loads(ended.stdout.splitlines()[-1])
    return result


def all_peers(python: str) -> list[Peer]:
    ours, theirs = [sys.executable], [python]
    return [
        Peer(BASELINE, [*ours, "with_trio.py"]),
        Peer("atomr (this)", [*ours, "with_atomr.py"]),
        Peer("atomr, tasks", [*ours, "with_atomr.py", "tasks"]),
        Peer("asyncio by hand", [*ours, "with_asyncio.py"]),
        Peer("pykka", [*theirs, "with_pykka.py"]),
        Peer("thespian", [*theirs, "with_thespian.py"]),
        Peer("triotp", [*theirs, "with_triotp.py"]),
        Peer("fauxtp", [*theirs, "with_fauxtp.py"]),
        Peer("otpylib", [*theirs, "with_otpylib.py"]),
        Peer("atomr (Rust)", [*theirs, "with_rust.py"]),
        Peer("BEAM", ["escript", "with_beam.escript"]),
    ]


def show(peers: list[Peer]) -> None:
    heading = "".join(f"{name:>11}" for name in HEADINGS.values())
    print(f"{'microseconds':16}{heading}")
    for peer in peers:
        print(f"{peer.name:16}{cells(peer)}{peer.trouble}")
    print(f"\n{'ratio to trio':16}{heading}")
    baseline = peers[0]
    for peer in peers:
        if peer.rounds:
            print(f"{peer.name:16}{cells(peer, baseline)}")
    print()
    for peer in peers:
        if peer.release:
            print(f"{peer.name:16}{peer.release}")


def cells(peer: Peer, baseline: Peer | None = None) -> str:
    """Return a row's numbers; a dash is what the library cannot do."""
    if not peer.rounds:
        return "  "
    row = ""
    for field in HEADINGS:
        value = peer.median(field)
        beside = baseline.median(field) if baseline else 1.0
        if value is None or beside is None:
            row += f"{'-':>11}"
        else:
            row += f"{value / beside:11.2f}"
    return row + "  "


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare with other actor libraries.")
    parser.add_argument("--python", default=sys.executable, help="has the peers")
    parser.add_argument("rounds", nargs="?", type=int, default=3)
    options = parser.parse_args()
    python = shutil.which(options.python)
    if python is None:
        parser.error(f"--python {options.python}: no such interpreter")
    peers = all_peers(str(Path(python).absolute()))
    for peer in peers:
        peer.measure("idle")
    for _ in range(options.rounds):
        for peer in peers:
            peer.measure("times")
    show(peers)


if __name__ == "__main__":
    main()
