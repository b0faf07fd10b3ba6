"""A runner that tells figures of its engine.

The names that several engines have in common are in
:mod:`atomr_infer.model.figures`; others are the engine's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from atomr_infer.model.figures import Figure


@runtime_checkable
class Metered(Protocol):
    """A runner whose engine can be looked into, for the operators' ``/metrics``."""

    async def figures(self) -> tuple[Figure, ...]:
        """Return how the engine stands, from memory: it is asked now and then.

        Raises:
            InferenceError: it cannot tell.
        """
        ...
