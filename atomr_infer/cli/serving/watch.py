"""The configuration is read anew when its file has changed: ``[gateway] watch``.

The files are looked at, once a second: that works on every file system, and where an
editor puts another file in the place of the old one.  A file that is being written
is left alone until it has stayed the same from one look to the next.

Beside the configuration these are the certificate with its key, and the files in
which the gateway's own keys are.  Those of the deployments' keys are looked at by
who uses them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from atomr_infer.model.secret import FileSecret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.cli.plan import ServePlan
    from atomr_infer.cli.serving.reload import Reloader

LOOK_EVERY_S = 1.0

# An editor takes a file away and puts another in its place; longer is an absence.
_ABSENT_LOOKS = 5

Look = tuple[tuple[int, int, int] | None, ...]
"""Each file's inode, size and time of change; None: it is not there."""


def watched_files(plan: ServePlan) -> tuple[str, ...]:
    """Return the files that a plan was made from, the configuration first."""
    gateway = plan.gateway
    files = [] if plan.origin is None else [plan.origin.path]
    files += [path for path in (gateway.certificate, gateway.private_key) if path]
    secrets = (*gateway.keys, gateway.admin_key)
    files += [each.path for each in secrets if isinstance(each, FileSecret)]
    return tuple(dict.fromkeys(files))


def look(files: Iterable[str]) -> Look:
    """Return how files are now."""
    return tuple(map(_look, files))


def _look(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)


class Watch:
    """Which look at the files is that of a change.

    Pure: who calls it looks.
    """

    def __init__(self, taken: Look | None = None) -> None:
        """Start.

        Args:
            taken: how the files were when they were taken; None: nobody looked, and
                the first whole look is that of a change.
        """
        self._taken = taken
        self._last = taken
        self._same = 0

    def changed(self, now: Look) -> bool:
        """Take a look; return whether the files are others, and no more in the making.

        >>> old, new = ((1, 10, 5),), ((1, 4, 6),)
        >>> watch = Watch(old)
        >>> [watch.changed(now) for now in (old, new, new, new)]
        [False, False, True, False]
        """
        self._same = self._same + 1 if now == self._last else 0
        self._last = now
        if now == self._taken or self._same < (_ABSENT_LOOKS if None in now else 1):
            return False
        self._taken = now
        return True


async def watch_files(reloader: Reloader) -> None:
    """Have the configuration read anew when its files have changed; never returns."""
    files: tuple[str, ...] = ()
    watch = Watch()
    while True:
        await trio.sleep(LOOK_EVERY_S)
        if not reloader.plan.gateway.watch:
            watch = Watch()
            continue
        if watched_files(reloader.plan) != files:
            files, watch = watched_files(reloader.plan), Watch()
        if watch.changed(await trio.to_thread.run_sync(look, files)):
            # Quiet: they may be as they were when somebody else had them read.
            await reloader.reload("the file has changed", quiet=True)
