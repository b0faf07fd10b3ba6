"""How far a child's start has come: kept for errors, and shown to who waits for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atomr_infer.bridge.protocol.values import progress_from_wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.bridge.protocol.values import ProgressWire
    from atomr_infer.runtimes.contract import Progress

_log = logging.getLogger(__name__)


class Shown:
    """A start's progress.

    Args:
        name: the deployment's.
        show: is called with each news.

    Attributes:
        doing: what the child does, in a few words.
    """

    def __init__(self, name: str, show: Callable[[Progress], None]) -> None:
        self.doing = "starting"
        self._name = name
        self._show = show

    def take(self, told: ProgressWire) -> None:
        """Take what the child says."""
        progress = progress_from_wire(told)
        self.doing = progress.phase
        try:
            self._show(progress)
        except Exception:  # noqa: BLE001  a display's bug must not cost an engine
            _log.exception("showing the progress of %r failed", self._name)
