"""A node in a process of its own, as tests start it.

    python node_process.py NAME FOLDER [dial PEER PORT]

Prints its port, serves ``shelf``, and tells the peer when it is given one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from atomr.crdt.origin import Origin
from atomr.http2 import Credentials, LinkOptions, open_links
from tests.atomr.http2.conftest import CLUSTER, COOKIE, Put, Shelf


async def main() -> None:
    name, folder, *dial = sys.argv[1:]
    credentials = Credentials.load(
        ca_file=f"{folder}/ca-{CLUSTER}.pem",
        certificate_file=f"{folder}/ca-{CLUSTER}-{CLUSTER}-{name}.pem",
        key_file=Path(folder) / f"ca-{CLUSTER}-{CLUSTER}-{name}.key",
    )
    options = LinkOptions(CLUSTER, Origin(name, 1), COOKIE, credentials)
    async with open_links(options, {"shelf": Shelf().service()}) as links:
        print(await links.listen("127.0.0.1", 0), flush=True)
        if dial:
            _, peer, port = dial
            link = await links.dial(peer, "127.0.0.1", int(port))
            link.tell("shelf", Put(name, 1))
        await trio.sleep_forever()


trio.run(main)
