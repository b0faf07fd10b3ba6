"""What a virtual key costs a request, and how soon other nodes know of it.

    python tests/benchmarks/bench_virtual_keys.py

Two nodes in one process, over mutual TLS: from when a key was made, or revoked, on one
of them until it opens, or does not, on the other one.  And in place: the look-up of a
key, a permit where nobody waits, and a turn of a queue in which many tenants wait.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import timeit
from pathlib import Path
from typing import TYPE_CHECKING

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from atomr.cluster.replicator import Replicator
from atomr_infer.gateway.access.door import Door
from atomr_infer.model.key_secret import digest_of, make_secret
from atomr_infer.model.virtual_key import KeySecret, VirtualKey
from atomr_infer.policy.tenants.admission import AdmissionQueue, Claim
from atomr_infer.serving.limits.key_ring import KeyRing
from tests.serving.test_key_ring import is_open, terms, two_nodes

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 100
KEYS = 10_000
TENANTS = 100
LOOK_EVERY_S = 0.0005


async def changed(condition: Callable[[], bool]) -> float:
    """Wait for a state; return how long it took, in milliseconds."""
    began_s = time.perf_counter()
    while not condition():  # noqa: ASYNC110 - it is another node's
        await trio.sleep(LOOK_EVERY_S)
    return (time.perf_counter() - began_s) * 1e3


async def elsewhere() -> None:
    """Measure how soon the other node knows."""
    known, revoked = [], []
    with tempfile.TemporaryDirectory() as folder:
        async with two_nodes(Path(folder)) as (a, b):
            here, there = a.key_ring, b.key_ring
            for number in range(TIMES):
                issued = await here.create(terms(here, f"k{number}"))
                known.append(await changed(lambda i=issued: is_open(there, i)))  # type: ignore[misc] # of this round
                await there.revoke(f"k{number}")
                revoked.append(await changed(lambda i=issued: not is_open(here, i)))  # type: ignore[misc] # as above
    for what, found in (("known", known), ("revoked", revoked)):
        found.sort()
        median, most = found[len(found) // 2], found[-1]
        print(f"{what} on the other node after {median:.1f} ms, at most {most:.1f} ms")


def each_us(work: Callable[[], object], times: int = 50_000) -> float:
    """Return what one takes, in microseconds: the best of five."""
    return min(timeit.repeat(work, number=times, repeat=5)) / times * 1e6


def look_up_us() -> float:
    """Return what it takes to let a key in."""
    ring = KeyRing(Replicator())
    digest = b""
    for number in range(KEYS):
        key = VirtualKey(id=ring.new_id(), name=f"k{number}")
        digest = digest_of(make_secret(os.urandom(32)))
        ring.table.take_key(key)
        ring.table.take_secret(
            KeySecret(digest=digest, key=key.id, shown="sk-...", created_at_s=0)
        )
    door = Door(None, ring)
    return each_us(lambda: door.admitted(digest))


def permit_us() -> float:
    """Return what a permit costs that is free."""
    queue: AdmissionQueue[int] = AdmissionQueue(max_queue=9)
    queue.open(8)

    def take() -> None:
        queue.ask(1, may_wait=False)
        queue.leave(1)

    return each_us(take)


def turn_us() -> float:
    """Return what a turn costs where many tenants wait."""
    queue: AdmissionQueue[int] = AdmissionQueue(max_queue=TENANTS + 1)
    queue.open(1)
    claims = [
        Claim(((f"team {n % 10}", 1.0), (f"key {n}", 1.0)), 100.0)
        for n in range(TENANTS)
    ]
    for number in range(TENANTS + 1):
        queue.ask(number, claim=claims[number % TENANTS])
    runs, number = 0, TENANTS

    def turn() -> None:
        nonlocal runs, number
        number += 1
        [runs] = queue.leave(runs)
        queue.ask(number, claim=claims[number % TENANTS])

    return each_us(turn, 20_000)


def main() -> None:
    """Print what was measured."""
    trio.run(elsewhere)
    print(f"one of {KEYS:,} keys is let in: {look_up_us():.2f} us")
    print(f"a permit, where nobody waits: {permit_us():.2f} us")
    print(f"a turn, where {TENANTS} tenants of ten teams wait: {turn_us():.1f} us")


if __name__ == "__main__":
    main()
