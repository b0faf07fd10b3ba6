"""What a cluster of real processes reaches of its goals, in one table.

    python tests/benchmarks/bench_cluster.py [ROUNDS]

Five nodes over mutual TLS on loopback, then three; a new cluster for each figure that
breaks one.  ``goal`` is that of the design; other work on the machine makes all of it
slower, so look at ``load`` first.

Traffic is what the kernel counts on the links' sockets (``ss``), with TLS, HTTP/2 and
heartbeats; CPU is that of the processes, at rest.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.atomr.cluster.real.harness import RealCluster, open_real_cluster

THREE = ("a", "b", "c")
FIVE = (*THREE, "d", "e")
IDLE_S = 20.0
SETTLE_S = 5.0
PUTS = 200
CALLS = 2_000
LEASE_S = 3.0


@attrs.frozen
class Row:
    """One line of the table.

    Attributes:
        what: was measured.
        goal: of the design; empty: it has none.
        found: what came out, best to worst.
    """

    what: str
    goal: str
    found: str


Bench = Callable[[int], Awaitable[list[Row]]]


def main() -> None:
    """Run all and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {rounds} rounds")
    for bench in (at_rest, killed, stopped, propagation, singleton):
        for row in trio.run(bench, rounds):
            print(f"{row.what:48} {row.goal:>18}  {row.found}", flush=True)


def p(values: list[float], share: float) -> float:
    """Return a percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def each(values: list[float], unit: str, *, times: float = 1.0) -> str:
    """Return all values in order."""
    return ", ".join(f"{value * times:.3g}" for value in sorted(values)) + f" {unit}"


async def at_rest(_: int) -> list[Row]:
    """Traffic and CPU of five nodes that do nothing."""
    rows = []
    for bare, what in ((True, "members only"), (False, "with names and values")):
        with tempfile.TemporaryDirectory() as folder:
            async with open_real_cluster(Path(folder), FIVE, bare=bare) as cluster:
                await cluster.start()
                await trio.sleep(SETTLE_S)
                before, sent = await _cpu(cluster), _sent_bytes(cluster)
                began_s = time.monotonic()
                await trio.sleep(IDLE_S)
                took_s = time.monotonic() - began_s
                after, sent_after = await _cpu(cluster), _sent_bytes(cluster)
        cpu = [(after[name] - before[name]) / took_s for name in FIVE]
        rows.append(Row(f"idle CPU, {what}", "<= 0.5 %", each(cpu, "%", times=100)))
        if sent is None or sent_after is None:
            rows.append(Row(f"idle traffic, {what}", "<= 2 kB/s", "no ss here"))
            continue
        per_s = [(sent_after[name] - sent[name]) / took_s for name in FIVE]
        found = each(per_s, "kB/s", times=1e-3)
        rows.append(Row(f"idle traffic sent, {what}", "<= 2 kB/s", found))
    return rows


async def _cpu(cluster: RealCluster) -> dict[str, float]:
    found = {}
    for name, node in cluster.nodes.items():
        cost = await node.ask("cost")
        found[name] = cost["cpu_s"]
    return found


def _sent_bytes(cluster: RealCluster) -> dict[str, int] | None:
    """Return what each node has sent over the connections that it has now."""
    if shutil.which("ss") is None:
        return None
    command = ["ss", "-tinpH", "state", "established"]
    text = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    found = dict.fromkeys(cluster.nodes, 0)
    pids = {node.pid: name for name, node in cluster.nodes.items()}
    for match in re.finditer(r"pid=(\d+),.*\n(.*)", text):
        name = pids.get(int(match[1]))
        sent = re.search(r"bytes_sent:(\d+)", match[2])
        if name is not None and sent is not None:
            found[name] += int(sent[1])
    return found


async def killed(rounds: int) -> list[Row]:
    """SIGKILL until all others have seen it."""
    seen = [await _seen(signal.SIGKILL) for _ in range(rounds)]
    return [Row("SIGKILL seen by all of 5", "<= 1 s", each(seen, "ms", times=1e3))]


async def stopped(rounds: int) -> list[Row]:
    """SIGSTOP until all others have seen it."""
    seen = [await _seen(signal.SIGSTOP) for _ in range(rounds)]
    return [Row("SIGSTOP seen by all of 5", "<= 8 s", each(seen, "s"))]


async def _seen(number: signal.Signals) -> float:
    with tempfile.TemporaryDirectory() as folder:
        async with open_real_cluster(Path(folder), FIVE) as cluster:
            await cluster.start()
            at_s = cluster["c"].signal(number)
            return await cluster.seen_after("c", "down", since_s=at_s)


async def propagation(_: int) -> list[Row]:
    """A value that is put on one of three nodes until both others have it."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_real_cluster(Path(folder), THREE) as cluster:
            await cluster.start()
            for name in ("b", "c"):
                await cluster[name].ask("watch")
            await trio.sleep(SETTLE_S)
            waits = [await _propagated(cluster, f"k{n}") for n in range(PUTS)]
            await cluster["b"].ask("register", names=["lobby"])
            await cluster["a"].come_to(["lobby"], "names")
            calls = await cluster["a"].ask("asks", name="lobby", number=CALLS)
    return [
        Row("a value, seen by both others: p50", "<= 10 ms", _ms(p(waits, 0.5))),
        Row("a value, seen by both others: p99", "<= 50 ms", _ms(p(waits, 0.99))),
        Row("a call by name, one at a time: p50", "", _ms(p(calls, 0.5))),
        Row("a call by name, one at a time: p99", "", _ms(p(calls, 0.99))),
    ]


def _ms(value_s: float) -> str:
    return f"{value_s * 1e3:.3g} ms"


async def _propagated(cluster: RealCluster, key: str) -> float:
    put_s = await cluster["a"].ask("put", key=key, value=1)
    last_s = 0.0
    for name in ("b", "c"):
        [told] = await cluster[name].until(partial(cluster[name].told, "note", key=key))
        last_s = max(last_s, told["at_s"] - put_s)
    return last_s


async def singleton(rounds: int) -> list[Row]:
    """How long a singleton runs nowhere when its node is killed, and leaves."""
    killed_s, left_s = [], []
    for _ in range(rounds):
        killed_s.append(await _gap(kill=True))
        left_s.append(await _gap(kill=False))
    lapse = f"<= {LEASE_S * 1.05 / 0.95 + 0.05 + LEASE_S / 10:.1f} s"
    return [
        Row(
            f"singleton of a killed node, lease {LEASE_S:g} s",
            lapse,
            each(killed_s, "s"),
        ),
        Row("singleton of a node that leaves", "", each(left_s, "ms", times=1e3)),
    ]


async def _gap(*, kill: bool) -> float:
    options = {"voters": THREE, "lease_s": LEASE_S}
    with tempfile.TemporaryDirectory() as folder:
        async with open_real_cluster(Path(folder), THREE, **options) as cluster:
            await cluster.start()
            won = await _next_win(cluster, set())
            await trio.sleep(1.5 * LEASE_S)  # a voter that has just started is none
            holder = cluster[won["node"]]
            at_s = time.monotonic()
            await (holder.kill() if kill else holder.leave())
            if not kill:
                [stop] = holder.told("singleton stop")
                at_s = stop["at_s"]
            heir = await _next_win(cluster, {won["node"]})
            return float(heir["at_s"]) - at_s


async def _next_win(cluster: RealCluster, but: set[str]) -> dict[str, Any]:
    while True:
        for node in cluster.nodes.values():
            for event in node.told("singleton won"):
                if event["node"] not in but:
                    return event
        await trio.sleep(0.01)


if __name__ == "__main__":
    main()
