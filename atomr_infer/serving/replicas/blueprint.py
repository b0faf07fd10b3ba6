"""What a deployment's processes are made from, whenever one of them starts.

The deployment manager changes it, and the processes read it where they are: a core
or a coordinator that is restarted is made from what the deployment is now.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import count
from typing import TYPE_CHECKING

from atomr_infer.serving.replicas.engine_context import EngineContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.credentials import Credentials
    from atomr_infer.serving.replicas.engine_context import EngineSource


class Blueprint:
    """One deployment as it is to be.

    Attributes:
        source: how a runner of it is opened.
        contexts: the context that each replica runs on, by the replica's number.
    """

    def __init__(self, source: EngineSource) -> None:
        self.source = source
        self.contexts: dict[int, EngineContext] = {}
        self._versions: defaultdict[int, Iterator[int]] = defaultdict(count)

    @property
    def deployment(self) -> Deployment:
        """What is served."""
        return self.source.deployment

    @property
    def keys(self) -> Credentials | None:
        """What hands out its keys; None: its requests ask for none."""
        return self.source.context.credentials

    def context(self, number: int, source: EngineSource) -> EngineContext:
        """Return a further context for a replica, newer than all before it.

        Args:
            number: the replica's.
            source: what it opens.
        """
        return EngineContext(source, number, next(self._versions[number]))

    def reread(self, source: EngineSource) -> None:
        """Take a source with which the engines that run are what they are to be."""
        self.source = source
        for context in self.contexts.values():
            context.reread(source)
