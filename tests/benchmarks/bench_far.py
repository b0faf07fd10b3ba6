"""What a request and a chunk cost through another node, beside this node's own.

    python tests/benchmarks/bench_far.py [--seconds S] [--rounds N]

The provider and the client are those of ``bench_gateway.py``, in C.  Two nodes with a
gateway each, over mutual TLS on loopback; the provider is asked by one of them.  The
client asks that one, and then the other one, in turn, in the same run.

Measured is the CPU time, user and system, of both nodes together.  What counts is the
ratio of the two: microseconds are not comparable between machines.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).parents[2]))

from atomr_infer.cli.certificates import make_folder
from tests.benchmarks.bench_gateway import compiled, measure, provider
from tests.benchmarks.gateway.processes import (
    GATEWAY_CORE,
    Program,
    python,
    wait_until_ready,
)
from tests.serving.far.node_program import CLUSTER, Model

LEVELS = (("plain", 1), ("plain", 16), ("plain", 64), ("stream", 16), ("stream", 64))


class Both:
    """The CPU time of two nodes."""

    def __init__(self, *programs: Program) -> None:
        self._programs = programs

    def cpu_s(self) -> float:
        return sum(program.cpu_s() for program in self._programs)


def start(
    name: str, folder: Path, upstream: int, seeds: list[str], *, runs: bool
) -> Program:
    endpoint = f"http://127.0.0.1:{upstream}/v1"
    model = Model(
        runtime="openai", model="m", endpoint=endpoint, runs=runs, max_concurrency=512
    )
    config = {
        "name": name,
        "folder": str(folder),
        "seeds": seeds,
        "model": attrs.asdict(model),
        "unasked": True,
    }
    program = str(Path(__file__).parents[1] / "serving/far/node_program.py")
    return Program(
        python(program, json.dumps(config)),
        GATEWAY_CORE,
        environment={"PYTHONPATH": str(Path(__file__).parents[2])},
        log=folder / f"{name}.log",
    )


def run(rounds: int, seconds: float) -> list[dict[tuple[str, int], dict[str, Any]]]:
    """Return, for each level, what was measured here and there in each round."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_folder(folder, cluster=CLUSTER, nodes=("a", "b"))
        upstream = stack.enter_context(provider(folder))
        load = compiled(folder, "load")
        b = stack.enter_context(start("b", folder, upstream, [], runs=True))
        told = json.loads(b.line())
        a = stack.enter_context(
            start("a", folder, upstream, [told["address"]], runs=False)
        )
        ports = {
            "this node": int(told["url"].rsplit(":", 1)[1]),
            "another node": int(json.loads(a.line())["url"].rsplit(":", 1)[1]),
        }
        wait_until_ready(ports["this node"])
        both: Any = Both(a, b)
        found: list[dict[tuple[str, int], dict[str, Any]]] = []
        for _ in range(rounds):
            found.append({})
            for kind, count in LEVELS:
                found[-1][kind, count] = {
                    name: measure(load, port, both, kind, count, seconds)
                    for name, port in ports.items()
                }
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measure")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    if shutil.which("cc") is None:
        print("not measured: provider and client are in C, and there is no cc here")
        return
    rounds = run(chosen.rounds, chosen.seconds)
    cores = os.cpu_count()
    print(f"{cores} cores; {chosen.rounds} rounds of {chosen.seconds:g} s")
    print(f"{'':>12}{'this node':>26}{'another node':>26}{'ratio':>8}")
    for kind, count in LEVELS:
        here, there = (
            {
                what: statistics.median(
                    measures[kind, count][name][what] for measures in rounds
                )
                for what in ("cpu_us", "p50_us", "rate")
            }
            for name in ("this node", "another node")
        )
        cells = [
            f"{each['cpu_us']:.0f} us, p50 {each['p50_us']:.0f} us"
            for each in (here, there)
        ]
        ratio = f"{there['cpu_us'] / here['cpu_us']:.1f}x"
        print(f"{kind + ' ' + str(count):>12}{cells[0]:>26}{cells[1]:>26}{ratio:>8}")


if __name__ == "__main__":
    main()
