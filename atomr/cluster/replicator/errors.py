"""What goes wrong with a replicator."""

from __future__ import annotations

from atomr.errors import AtomrError


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
            f"replicator {name!r} does not run: give it to open_cluster(), or wait"
            " until its supervisor has started it again"
        )
