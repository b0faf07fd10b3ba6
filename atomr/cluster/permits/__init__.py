"""Rate limits that hold for all nodes of a cluster together.

``docs/reference/limits.md`` says what is promised, and why it holds.
"""

from atomr.cluster.permits.errors import (
    NotLimitingError,
    PermitsError,
    UnknownLimitError,
)
from atomr.cluster.permits.line import Permits
from atomr.cluster.permits.outcomes import LimitState
from atomr.cluster.permits.service import PermitService
from atomr.gossip.escrow import FIRST, UNKNOWN, Denied, Limit, Mode, Past

__all__ = [
    "FIRST",
    "UNKNOWN",
    "Denied",
    "Limit",
    "LimitState",
    "Mode",
    "NotLimitingError",
    "Past",
    "PermitService",
    "Permits",
    "PermitsError",
    "UnknownLimitError",
]
