"""What goes wrong with a node's part in limits."""

from __future__ import annotations

from atomr.errors import AtomrError


class PermitsError(AtomrError):
    """Root of the errors of permits."""


class NotLimitingError(PermitsError):
    """The service was not started yet; nothing was used.

    Attributes:
        name: of the service.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"{name!r} was not started yet: open_cluster() or open_alone() must have it"
        )


class UnknownLimitError(PermitsError):
    """There is no limit of that name here; nothing was used.

    Attributes:
        limit: its name.
    """

    def __init__(self, limit: str) -> None:
        self.limit = limit
        super().__init__(f"limit {limit!r} is not here; add() it first")
