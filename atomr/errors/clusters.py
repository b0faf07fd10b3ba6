"""What becomes of a node's part in a cluster."""

from __future__ import annotations

from atomr.errors.base import AtomrError, short


class ClusterError(AtomrError):
    """Something about this node's part in a cluster."""


class SupersededError(ClusterError):
    """The others know a later life of this node, and listen to this one no more.

    Attributes:
        origin: this life.
        by: the later one.
    """

    def __init__(self, origin: object, by: object) -> None:
        self.origin = origin
        self.by = by
        super().__init__(
            f"node {origin} was superseded by {by}: another process has its name, or"
            " the clock was behind at this start; give each process a name of its"
            " own, or set the clock, and start again"
        )


class ClusterDownError(ClusterError):
    """The node's part in the cluster ended by itself.

    Attributes:
        reason: the exit reason of its supervisor.
    """

    def __init__(self, name: str, reason: object) -> None:
        self.reason = reason
        super().__init__(f"cluster of {name!r} ended: {short(reason)}")


class ClusterTimeoutError(ClusterError):
    """Too few nodes were up within ``timeout_s``.

    Attributes:
        expected: how many were waited for, this node among them.
        up: names of those that are up.
        timeout_s: the bound in seconds that passed.
    """

    def __init__(self, expected: int, up: tuple[str, ...], timeout_s: float) -> None:
        self.expected = expected
        self.up = up
        self.timeout_s = timeout_s
        super().__init__(
            f"wait_for({expected}): {len(up)} nodes up within {timeout_s} s:"
            f" {', '.join(up)}"
        )


class DiscoveryError(ClusterError):
    """A discovery could not say which nodes there are.

    Attributes:
        source: what was asked.
    """

    def __init__(self, source: str, problem: str) -> None:
        self.source = source
        super().__init__(f"discovery by {source}: {problem}")
