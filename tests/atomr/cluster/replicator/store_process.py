"""A node in a process of its own that writes until it is killed.

    python -m tests.atomr.cluster.replicator.store_process FILE

Prints, line by line, how many keys are known to be on the disk.
"""

from __future__ import annotations

import sys

import trio

from atomr.cluster.replicator import Replicator, ReplicatorOptions, StoreOptions
from atomr.crdt import Origin
from atomr.process import open_node
from tests.atomr.cluster.replicator.lab import LabPeers


async def main() -> None:
    replicator = Replicator(
        ReplicatorOptions(shards=4), store=StoreOptions(sys.argv[1], batch_s=0.001)
    )
    numbers = replicator.open_map("numbers")
    async with open_node() as node:
        await node.start(replicator.child(LabPeers(Origin("a", 1))))
        number = len(numbers)
        print(number, flush=True)
        while True:
            for _ in range(37):
                numbers.put(number, {"square": number * number})
                number += 1
            await replicator.sync()
            print(number, flush=True)


trio.run(main)
