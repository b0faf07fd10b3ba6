"""How fast a death is seen, and how often a node is wronged, in the simulator.

    python tests/benchmarks/bench_membership.py [SEEDS]

Frames take 0.5 to 2 ms.  The figures are those of the protocol with its defaults,
the same on each machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.atomr.gossip.membership.bars import (
    death_s,
    idle_bytes_per_s,
    restart_s,
    reunion_s,
    wrongs,
)

DEATHS = (
    ("5 nodes, killed (links are reset)", 5, 0.0, False),
    ("5 nodes, stopped without a word", 5, 0.0, True),
    ("64 nodes, stopped", 64, 0.0, True),
    ("100 nodes, stopped, half of all frames lost", 100, 0.5, True),
)


def show_deaths(seeds: int) -> None:
    print("\n| a death, s, the worst of all runs | suspected by all | dead for all |")
    print("|---|---|---|")
    for what, number, loss, stops in DEATHS:
        runs = range(seeds if number == 5 else max(2, seeds // 4))
        found = [death_s(number, seed, loss=loss, stops=stops) for seed in runs]
        suspect_s, dead_s = (max(each) for each in zip(*found, strict=True))
        print(f"| {what} | {suspect_s:.2f} | {dead_s:.2f} |", flush=True)


def show_wrongs() -> None:
    found = wrongs(32, 1, hours=1.0, loss=0.3, stallers=4)
    print(
        "\nin an hour of 32 nodes with 30 % loss, of which four stall for 3 s each two"
        f" minutes: {found.deaths} held dead, {found.accusations:.1f} suspicions an"
        f" hour and node, {found.healthy:.2f} of them of a node that was well"
    )


def show_others(seeds: int) -> None:
    restart = max(restart_s(64, seed) for seed in range(max(1, seeds // 4)))
    contact_s, agreed_s = reunion_s(32, 1, apart_s=60.0)
    print(f"64 nodes that all restart agree after {restart:.2f} s")
    print(
        f"two sides of 16 nodes meet {contact_s:.1f} s after a cut is mended, and"
        f" agree {agreed_s - contact_s:.1f} s later"
    )
    for number in (5, 64):
        print(f"idle, {number} nodes: {idle_bytes_per_s(number, 1):.0f} B/s and node")


def main(seeds: int) -> None:
    """Print all of it."""
    show_deaths(seeds)
    show_wrongs()
    show_others(seeds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
