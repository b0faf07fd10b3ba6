"""What goes wrong with a replicator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.errors import AtomrError

if TYPE_CHECKING:
    from pathlib import Path


class ReplicatorError(AtomrError):
    """Root of the errors of replicators."""


class NotReplicatingError(ReplicatorError):
    """The replicator's process does not run; nothing was read or written.

    Attributes:
        name: of the replicator.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            # Short: a StartError quotes little of its cause.
            f"replicator {name!r} does not run, or restarts: open_cluster() must have"
            " it before its users, as in [remote, replicator, registry]"
        )


class ShardStoreError(ReplicatorError):
    """The file of a replicator cannot be used; what is in it was not changed.

    Attributes:
        path: of the file.
        problem: what is wrong, and what to do about it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"replicator's file {path}: {problem}")


class NotStoredError(ReplicatorError):
    """What was written is nowhere but in memory.

    Attributes:
        name: of the replicator.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"sync of replicator {name!r}: it has no file, or it failed; the log says"
            " which"
        )
