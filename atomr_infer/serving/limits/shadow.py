"""Limits that refuse nothing: what they would have refused is counted and told."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import attrs
import trio

from atomr import telemetry

if TYPE_CHECKING:
    from atomr_infer.errors import RateLimitedError

log = logging.getLogger(__name__)

_TOLD_EVERY_S = 10.0


@attrs.define
class Shadow:
    """What was not refused, but would have been.

    Attributes:
        refused: requests so far.
    """

    refused: int = 0
    _told_at_s: float = -math.inf

    def tell(self, owner: str, error: RateLimitedError) -> None:
        """Count one; the log says so now and then."""
        self.refused += 1
        now_s = trio.current_time()
        if now_s - self._told_at_s >= _TOLD_EVERY_S:
            self._told_at_s = now_s
            log.warning(
                "shadow limit of %s: %d requests would have been refused so far: %s",
                owner,
                self.refused,
                error,
            )
        telemetry.emit(("atomr_infer", "rate_limit", "shadow"), {}, {"owner": owner})
