"""What a singleton raises."""

from __future__ import annotations

from atomr.errors import AtomrError


class NotHolderError(AtomrError):
    """This node may not do what only one may.

    Attributes:
        name: of the singleton.
        why: why it does not run here.
    """

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self.why = why
        super().__init__(f"singleton {name!r} may not act on this node: {why}")


class SingletonTimeoutError(AtomrError):
    """Nobody was known to run the singleton in time.

    Attributes:
        name: of the singleton.
        why: why it did not run.
        timeout_s: how long it was waited for.
    """

    def __init__(self, name: str, why: str, timeout_s: float) -> None:
        self.name = name
        self.why = why
        self.timeout_s = timeout_s
        super().__init__(f"singleton {name!r} runs nowhere after {timeout_s} s: {why}")
