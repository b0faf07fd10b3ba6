"""Which partition a key belongs to.

An integer goes to its remainder, a pid to that of its number: processes that
are started one after the other fall evenly.  Everything else is hashed, with a
checksum of the key's value and not with ``hash()``, which differs from one run
of Python to the next: a key that was routed to partition 3 yesterday would be
elsewhere today, and no failure could be reproduced.

Equal keys go to one partition; for that reason a key is an ``int``, ``str``,
``bytes``, ``Pid`` or a tuple of those, whose values say all about them.

Pure.

Source: Elixir ``PartitionSupervisor``, "Implementation notes".
"""

from __future__ import annotations

from typing import TypeAlias
from zlib import crc32

from atomr.refs import Pid

PartitionKey: TypeAlias = "int | str | bytes | Pid | tuple[PartitionKey, ...]"
"""What can be routed."""


def partition_of(key: PartitionKey, partitions: int) -> int:
    """Return the number of the partition that ``key`` is routed to.

    Args:
        key: what to route.
        partitions: how many there are, at least 1.

    Raises:
        TypeError: no hash of such a key would be the same in the next run.

    >>> [partition_of(key, 4) for key in (6, -6, "ann", ("ann", 6))]
    [2, 2, 2, 3]
    """
    if isinstance(key, int):
        return abs(key) % partitions
    if isinstance(key, Pid):
        return key.number % partitions
    return crc32(_encoded(key)) % partitions


def _encoded(key: PartitionKey) -> bytes:
    # Each part says its type and its length, so that no two keys look alike.
    if isinstance(key, str):
        return _part(b"s", key.encode("utf-8", "surrogatepass"))
    if isinstance(key, bytes):
        return _part(b"b", key)
    if isinstance(key, int):
        # Python refuses to write a very long one in decimal digits.
        return _part(b"i", b"%x" % key)
    if isinstance(key, Pid):
        return _part(b"p", b"%d" % key.number)
    if isinstance(key, tuple):
        return _part(b"t", b"".join(_encoded(part) for part in key))
    raise TypeError(
        f"key {key!r}: expected an int, str, bytes, Pid or a tuple of those, as only"
        " their hash is the same in each run"
    )


def _part(kind: bytes, value: bytes) -> bytes:
    return b"%s%d:%s" % (kind, len(value), value)
