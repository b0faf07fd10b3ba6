"""What the gateway costs for a request and for a chunk, beside nginx and a floor.

    python tests/benchmarks/bench_gateway.py [--seconds S] [--rounds N] [--only NAME]
    python tests/benchmarks/bench_gateway.py --profile {plain,stream}

A provider and a client in C (compiled here with ``cc``), and between them in turn:
nginx, where it is installed (``apt-get install nginx-light``); the least proxy that
trio allows (``gateway/floor.py``); and ``atomr-infer serve`` with an ``openai``
deployment, a process of its own, everything that it does for a request switched on:
a key check, routing, circuit breaker, a rate limit, a budget in dollars, usage, log
and metrics.  "no limits" is the same without the rate limit and the budget.

Each has a core of its own, and client and provider share another, where there are two.
Measured is the CPU time of a gateway's whole process tree, user and system: for a
request at 1 to 256 connections, and for an event at 16 to 256 streams that are paced
at 10 ms.  That is the figure that repeats (within 15 %), and what counts is its ratio
to nginx in the same run: microseconds are not comparable between machines.  Rates and
latencies are printed as a check; "direct" is the client at the provider itself.
"inf" is what a machine too busy with other things let nothing through.

With ``--profile`` ours alone runs at 8 connections under Python's profiler, and the
table says how many function calls each part of it makes for a request, or for a chunk,
and its share of the time.  Calls do not depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

FOLDER = Path(__file__).parent / "gateway"
sys.path.insert(0, str(FOLDER.parents[2]))

from tests.benchmarks.gateway.processes import (  # noqa: E402
    GATEWAY_CORE,
    OTHER_CORE,
    Program,
    free_port,
    python,
    wait_for_port,
    wait_until_ready,
)
from tests.benchmarks.gateway.profiled import parts  # noqa: E402

CONNECTIONS = (1, 16, 64, 256)
STREAMS = (16, 64, 256)
PACE_MS = 10
CHUNKS = 100
KEY = "sk-bench"
WARM_UP_S = 0.5  # of the client

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream provider {{ server 127.0.0.1:{upstream}; keepalive 512;
                       keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://provider; proxy_http_version 1.1;
                 proxy_set_header connection ""; proxy_buffering off; }}
  }}
}}
"""

ATOMR = """
[gateway]
bind = "127.0.0.1:{port}"
keys = [{{ env = "BENCH_KEY" }}]

[[deployment]]
name = "m"
runtime = "openai"
model = "m"
credential = {{ env = "BENCH_KEY" }}

[deployment.serving]
max_concurrency = 512

[deployment.options]
endpoint = "http://127.0.0.1:{upstream}/v1"

[deployment.price]
input = 0.10
output = 0.40
"""

# Far above what comes, so that nothing is refused: what counts is the counting.
LIMITS = """
[deployment.rate_limits]
requests_per_minute = 50_000_000
tokens_per_minute = 500_000_000_000

[[deployment.budget]]
per = "day"
usd = "1_000_000"

[node]
state_dir = "{folder}/state"
"""

Measures = dict[tuple[str, int], dict[str, float]]
Start = Callable[[int, int, Path], Program]


def start_nginx(port: int, upstream: int, folder: Path) -> Program:
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(port=port, upstream=upstream, folder=folder))
    command = ["nginx", "-c", str(config), "-e", str(folder / "nginx.err")]
    return Program(command, GATEWAY_CORE)


def start_floor(port: int, upstream: int, folder: Path) -> Program:
    script = str(FOLDER / "floor.py")
    return Program(python(script, str(port), str(upstream)), GATEWAY_CORE)


def start_atomr(port: int, upstream: int, folder: Path, *how: str | Path) -> Program:
    return start_serve(port, upstream, folder, ATOMR + LIMITS, *how)


def start_without_limits(port: int, upstream: int, folder: Path) -> Program:
    return start_serve(port, upstream, folder, ATOMR)


def start_serve(
    port: int, upstream: int, folder: Path, config: str, *how: str | Path
) -> Program:
    file = folder / f"atomr-{port}.toml"
    file.write_text(config.format(port=port, upstream=upstream, folder=folder))
    command = [str(part) for part in how] or ["-m", "atomr_infer.cli"]
    return Program(
        python(*command, "serve", "-c", str(file)),
        GATEWAY_CORE,
        environment={"BENCH_KEY": KEY},
        log=folder / f"atomr-{port}.log",
    )


GATEWAYS: dict[str, Start] = {
    "nginx": start_nginx,
    "floor": start_floor,
    "no limits": start_without_limits,
    "atomr-infer": start_atomr,
}


def compiled(folder: Path, name: str) -> str:
    made = folder / name
    source = str(FOLDER / f"{name}.c")
    subprocess.run(["cc", "-O2", "-o", str(made), source], check=True)
    return str(made)


def measure(
    load: str, port: int, gateway: Program | None, kind: str, count: int, seconds: float
) -> dict[str, float]:
    """One run of the client; CPU time is that of the gateway meanwhile."""
    arguments = [str(port), str(count), str(seconds), str(int(kind == "stream")), KEY]
    with Program([load, *arguments], OTHER_CORE) as client:
        if client.line() != "go":
            raise SystemExit("the client could not connect")
        before = gateway.cpu_s() if gateway else 0.0
        found: dict[str, float] = json.loads(client.line())
        after = gateway.cpu_s() if gateway else 0.0
    done = found["requests"] if kind == "plain" else found["events"]
    if found["errors"]:
        raise SystemExit(f"{kind} at {count}: {found}; nothing was measured")
    found["cpu_us"] = (after - before) / done * 1e6 if done else math.inf
    found["rate"] = done / seconds
    return found


@contextmanager
def provider(folder: Path) -> Iterator[int]:
    port = free_port()
    command = [compiled(folder, "upstream"), str(port), str(PACE_MS), str(CHUNKS)]
    with Program(command, OTHER_CORE) as upstream:
        if upstream.line() != "ready":
            raise SystemExit("the provider could not start")
        yield port


def levels() -> list[tuple[str, int]]:
    plain = [("plain", count) for count in CONNECTIONS]
    return plain + [("stream", count) for count in STREAMS]


def run(names: list[str], rounds: int, seconds: float) -> dict[str, list[Measures]]:
    """Measure the gateways in turn, at each level, in each round."""
    found: dict[str, list[Measures]] = {name: [] for name in ("direct", *names)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(provider(folder))
        load = compiled(folder, "load")
        running: dict[str, tuple[int, Program | None]] = {"direct": (upstream, None)}
        for name in names:
            port = free_port()
            started = stack.enter_context(GATEWAYS[name](port, upstream, folder))
            running[name] = (port, started)
            wait_for_port(port)
            if GATEWAYS[name] in {start_without_limits, start_atomr}:
                wait_until_ready(port)
        for _ in range(rounds):
            for measures in found.values():
                measures.append({})
            for kind, count in levels():
                for name, (port, program) in running.items():
                    found[name][-1][kind, count] = measure(
                        load, port, program, kind, count, seconds
                    )
    return found


def profile(kind: str, seconds: float) -> None:
    """Print what each part of ours does for a request, or for a chunk."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(provider(folder))
        load = compiled(folder, "load")
        port, file = free_port(), folder / "profile"
        script = FOLDER / "profiled.py"
        gateway = start_atomr(port, upstream, folder, script, file)
        stack.enter_context(gateway)
        wait_for_port(port)
        wait_until_ready(port)
        measure(load, port, gateway, kind, 8, 0.5)
        gateway.process.send_signal(signal.SIGUSR1)
        events = measure(load, port, gateway, kind, 8, seconds)["events"]
        gateway.process.send_signal(signal.SIGUSR2)
        while not file.exists():
            time.sleep(0.1)
        requests, found = parts(file)
    # The client does not count what comes in its warm-up.
    unit, count = "request", float(requests)
    if kind == "stream":
        unit, count = "chunk", events * (seconds + WARM_UP_S) / seconds
    if not count:
        raise SystemExit("nothing came through: the machine is too busy")
    total_calls = sum(calls for _, calls, _ in found)
    total_s = sum(part_s for _, _, part_s in found)
    print(f"{'calls per ' + unit:>40}{'share of time':>16}")
    for name, calls, part_s in found:
        print(f"{name:>32}{calls / count:8.0f}{part_s / total_s:16.0%}")
    print(f"{'all':>32}{total_calls / count:8.0f}")


def median(rounds: list[Measures], level: tuple[str, int], what: str) -> float:
    return statistics.median(measures[level][what] for measures in rounds)


def print_table(found: dict[str, list[Measures]]) -> None:
    for kind, unit in (("plain", "request"), ("stream", "chunk")):
        here = [level for level in levels() if level[0] == kind]
        costs = {
            name: [median(rounds, level, "cpu_us") for level in here]
            for name, rounds in found.items()
            if name != "direct"
        }
        print_row(f"CPU us per {unit}", [str(count) for _, count in here])
        for name, cells in costs.items():
            print_row(name, [f"{cost:.1f}" for cost in cells])
        *bases, (_, ours) = costs.items()
        for base, theirs in bases:
            ratios = [cost / other for cost, other in zip(ours, theirs, strict=True)]
            print_row(f"ratio to {base}", [f"{ratio:.1f}x" for ratio in ratios])
        print_row(f"{unit}s/s, p50/p99 us", ["" for _ in here])
        for name, rounds in found.items():
            print_row(name, [rates(rounds, level) for level in here])
        print()


def rates(rounds: list[Measures], level: tuple[str, int]) -> str:
    rate, p50, p99 = (
        median(rounds, level, key) for key in ("rate", "p50_us", "p99_us")
    )
    return f"{rate:.0f} {p50:.0f}/{p99:.0f}"


def print_row(name: str, cells: list[str]) -> None:
    print(f"{name:>22}" + "".join(f"{cell:>20}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=GATEWAYS, help="one gateway")
    parser.add_argument("--profile", choices=("plain", "stream"), help="of ours")
    chosen = parser.parse_args()
    if shutil.which("cc") is None:
        print("not measured: provider and client are in C, and there is no cc here")
        return
    if chosen.profile is not None:
        profile(chosen.profile, chosen.seconds)
        return
    names = [chosen.only] if chosen.only else list(GATEWAYS)
    if "nginx" in names and shutil.which("nginx") is None:
        names.remove("nginx")
        print("nginx is not installed, so there is no ratio to it")
    print(
        f"{os.cpu_count()} cores; {chosen.rounds} rounds of {chosen.seconds:g} s\n",
        flush=True,
    )
    print_table(run(names, chosen.rounds, chosen.seconds))


if __name__ == "__main__":
    main()
