"""What replicated values cost, each beside a plain dictionary in the same run.

    python tests/benchmarks/bench_crdt.py [ROUNDS]

Prints medians of interleaved rounds, per key, and the ratio to setting a key of a
plain dictionary to its encoded value: the ratio is comparable between machines, the
microseconds are not.  The goals are those of a join: at most 5 us per key.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from atomr.crdt import (
    Assembly,
    AWLWWMap,
    Batch,
    Delta,
    Event,
    EventLog,
    GCounter,
    Origin,
)

KEYS = 10_000
A, B = Origin("node-a", 1 << 60), Origin("node-b", 1 << 61)

Bench: TypeAlias = Callable[[], float]


def us_each(began: float, count: int = KEYS) -> float:
    """Return microseconds per operation since ``began``."""
    return (time.perf_counter() - began) / count * 1e6


def full_map(origin: Origin = A) -> AWLWWMap:
    replica = AWLWWMap(origin)
    for n in range(KEYS):
        replica.put(f"key-{n}", f"value-{n}")
    return replica


def plain_dict() -> float:
    encode = msgspec.msgpack.Encoder().encode
    plain: dict[str, bytes] = {}
    keys = [f"key-{n}" for n in range(KEYS)]
    began = time.perf_counter()
    for key in keys:
        plain[key] = encode(key)
    return us_each(began)


def put() -> float:
    replica = full_map()
    keys = [f"key-{n}" for n in range(KEYS)]
    began = time.perf_counter()
    for key in keys:
        replica.put(key, key)
    return us_each(began)


def put_logged() -> float:
    replica = EventLog(A).open(AWLWWMap, "m")
    keys = [f"key-{n}" for n in range(KEYS)]
    for key in keys:
        replica.put(key, key)
    began = time.perf_counter()
    for key in keys:
        replica.put(key, key)
    return us_each(began)


def deltas() -> tuple[AWLWWMap, list[Delta]]:
    ours, theirs = AWLWWMap(A), full_map(B)
    ours.join(theirs)
    return ours, [theirs.put(f"key-{n}", n) for n in range(KEYS)]


def join_deltas() -> float:
    ours, made = deltas()
    began = time.perf_counter()
    for delta in made:
        ours.join(delta)
    return us_each(began)


def events() -> tuple[Event, ...]:
    """Return a load of new keys, then one overwrite of each."""
    log = EventLog(B)
    replica = log.open(AWLWWMap, "m")
    for value in range(2):
        for n in range(KEYS):
            replica.put(f"key-{n}", value)
    front = log.diff({}, Batch(events=2 * KEYS, bytes=1 << 30))
    assert front is not None
    return front.events


EVENTS = events()


def receive_new() -> float:
    log = EventLog(A)
    began = time.perf_counter()
    log.receive(EVENTS[:KEYS])
    return us_each(began)


def receive_warm() -> float:
    log = EventLog(A)
    log.receive(EVENTS[:KEYS])
    began = time.perf_counter()
    log.receive(EVENTS[KEYS:])
    return us_each(began)


def load_state() -> float:
    state = full_map(B)
    empty = AWLWWMap(A)
    began = time.perf_counter()
    empty.join(state)
    return us_each(began)


def join_same() -> float:
    state = full_map(B)
    same = state.copy()
    began = time.perf_counter()
    same.join(state)
    return us_each(began)


def encode_deltas() -> float:
    _, made = deltas()
    began = time.perf_counter()
    for delta in made:
        delta.encode()
    return us_each(began)


def decode_deltas() -> float:
    encoded = [delta.encode() for delta in deltas()[1]]
    began = time.perf_counter()
    for content in encoded:
        Delta.decode(content)
    return us_each(began)


def encode_state() -> float:
    state = full_map()
    began = time.perf_counter()
    state.encode()
    return us_each(began)


def decode_state() -> float:
    encoded = full_map().encode()
    began = time.perf_counter()
    AWLWWMap.decode(encoded)
    return us_each(began)


def adopt_snapshot() -> float:
    log = EventLog(B)
    replica = log.open(AWLWWMap, "m")
    for n in range(KEYS):
        replica.put(f"key-{n}", n)
    snapshot = Assembly.of_chunks(log.snapshot())
    target = EventLog(A)
    began = time.perf_counter()
    target.adopt(snapshot)
    return us_each(began)


def join_counter() -> float:
    ours, theirs = GCounter(A), GCounter(B)
    made = [theirs.increment() for _ in range(KEYS)]
    began = time.perf_counter()
    for delta in made:
        ours.join(delta)
    return us_each(began)


BENCHES: list[tuple[str, Bench]] = [
    ("put over a key", put),
    ("put over a key, logged and hashed", put_logged),
    ("join a delta of one key, warm", join_deltas),
    ("receive an event, new key", receive_new),
    ("receive an event, warm", receive_warm),
    ("join a delta of a counter", join_counter),
    ("load a state of 10k into an empty one", load_state),
    ("join a state of 10k, nothing new", join_same),
    ("adopt a whole snapshot of 10k", adopt_snapshot),
    ("encode a delta", encode_deltas),
    ("decode a delta", decode_deltas),
    ("encode a state of 10k", encode_state),
    ("decode a state of 10k", decode_state),
]


def main(rounds: int) -> None:
    print(f"{'per key':40}{'us':>8}{'ratio':>8}   to a plain dictionary")
    for name, bench in BENCHES:
        pairs: list[tuple[float, float]] = []
        for _ in range(rounds):
            gc.collect()
            pairs.append((bench(), plain_dict()))
        mine = statistics.median(pair[0] for pair in pairs)
        plain = statistics.median(pair[1] for pair in pairs)
        print(f"{name:40}{mine:8.2f}{mine / plain:8.1f}")
    delta = deltas()[1][0].encode()
    state = full_map().encode()
    print(f"a delta of one key has {len(delta)} bytes, a state of 10k {len(state)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
