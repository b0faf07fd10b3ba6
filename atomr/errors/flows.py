"""What a flow raises of its own; an error of a stage's function stays what it is."""

from __future__ import annotations

from atomr.errors.base import AtomrError


class FlowError(AtomrError):
    """A flow could not go on, and no function of its stages is to blame."""


class BufferFullError(FlowError):
    """An event came to a full buffer that was told to fail.

    Attributes:
        size: how many events it holds.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(size)

    def __str__(self) -> str:
        """Return how many events it holds, and what else it could do."""
        return (
            f"an event came to a buffer that holds {self.size} and is full; "
            "let it wait or drop (when_full=), or make it larger"
        )


class FlowRestartsError(FlowError):
    """A part of a flow failed more often than it may be restarted.

    The last failure is the ``__cause__``.

    Attributes:
        max_restarts: how many restarts there may be.
        max_seconds: within how many seconds.
    """

    def __init__(self, max_restarts: int, max_seconds: float) -> None:
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        super().__init__(max_restarts, max_seconds)

    def __str__(self) -> str:
        """Return the intensity that was exceeded."""
        return (
            f"failed again after {self.max_restarts} restarts "
            f"within {self.max_seconds:g} s"
        )


class NoBranchError(FlowError):
    """A partition's function named a branch that there is not.

    Attributes:
        branch: what it returned.
        branches: how many there are.
    """

    def __init__(self, branch: object, branches: int) -> None:
        self.branch = branch
        self.branches = branches
        super().__init__(branch, branches)

    def __str__(self) -> str:
        """Return what was named, and what there is."""
        return f"no branch {self.branch!r}: they are numbered 0 to {self.branches - 1}"


class BranchOpenedAgainError(FlowError):
    """The input of a branch was opened twice, or later than the branch.

    Restart the flow around it instead.
    """

    def __str__(self) -> str:
        """Return what cannot be done, and what can."""
        return (
            "the input of a branch can be opened once, and with the branch: "
            "restart the whole flow, not a part of its branch"
        )
