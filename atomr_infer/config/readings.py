"""What could be read of a file's deployments, though some of it is wrong.

Who writes a file hears of all that is wrong with it in one round.  So what one mistake
leaves is looked at further, and these say which part of it can be believed: a mistake
that may only follow from another one is not told.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.config.reader import Origin
from atomr_infer.model.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@attrs.frozen
class ReadDeployment:
    """What could be read of a ``[[deployment]]``.

    Attributes:
        value: the deployment, without what is wrong with it; None: it has no name, or
            cannot be one whatever is left out.
        lacks: the keys that are left out, whose mistakes are told; ``name`` where it is
            another one's, and the value has it all the same.
    """

    value: Deployment | None = None
    lacks: frozenset[str] = frozenset()

    @property
    def has_name(self) -> bool:
        """Whether it can be told by its name from all others."""
        return self.value is not None and "name" not in self.lacks


@attrs.frozen
class Readings:
    """All deployments of a file, in its order.

    Attributes:
        all: one for each ``[[deployment]]``.
        origin: the file; None: they are a program's.
        are_missing: whether the file has none, nor anything that may be meant as one.

    >>> broken = Readings((ReadDeployment(Deployment(name="a", runtime="mock")),
    ...     ReadDeployment()))
    >>> [each.name for _, each in broken], broken.knows_names
    (['a'], False)
    """

    all: tuple[ReadDeployment, ...]
    origin: Origin | None = None
    are_missing: bool = False

    @classmethod
    def of(cls, deployments: Iterable[Deployment], origin: Origin | None) -> Readings:
        """Return those of deployments with which nothing is wrong."""
        return cls(tuple(map(ReadDeployment, deployments)), origin)

    def __iter__(self) -> Iterator[tuple[int, Deployment]]:
        """Yield what could be read and has a name, each with its place among all."""
        for index, deployment in self.alone:
            if self.all[index].has_name:
                yield index, deployment

    @property
    def alone(self) -> Iterator[tuple[int, Deployment]]:
        """What could be read, as :meth:`__iter__`, for what it says of itself alone.

        The names of some may be those of others.
        """
        for index, each in enumerate(self.all):
            if each.value is not None:
                yield index, each.value

    @property
    def values(self) -> tuple[Deployment, ...]:
        """What could be read and has a name."""
        return tuple(deployment for _, deployment in self)

    @property
    def knows_names(self) -> bool:
        """Whether a name that is not among these is nobody's."""
        return all(each.has_name for each in self.all)

    @property
    def knows_models(self) -> bool:
        """Whether a model that none of these serves is served by nobody."""
        return self.knows_names and not any("serves" in e.lacks for e in self.all)

    def is_whole(self, name: str) -> bool:
        """Whether nothing of a deployment is left out."""
        return any(
            each.value is not None and each.value.name == name and not each.lacks
            for each in self.all
        )
