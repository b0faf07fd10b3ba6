"""What operators ask of the program around a serving tree: reload, drain, its state.

``atomr-infer serve`` does it; a program that embeds a gateway may have none of it, and
then the operators' routes say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Shown = Mapping[str, object]
"""What can be told as JSON."""


class Lifecycle(Protocol):
    """The program's configuration, and its end."""

    def shown(self) -> Shown:
        """Return how the configuration stands, and whether it drains."""
        ...

    async def reload(self, cause: str, *, dry_run: bool) -> Shown:
        """Read the configuration anew, and take it.

        Args:
            cause: who asked, for those who read the log.
            dry_run: True changes nothing.

        Returns:
            What differs, and why it was refused if it was.

        Cancellation: it may be taken all the same.
        """
        ...

    def drain(self) -> Shown:
        """Stop being ready; returns at once."""
        ...

    def take_again(self) -> bool:
        """Be ready again; False: it does not drain."""
        ...
