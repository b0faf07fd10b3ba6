"""What operators are shown of virtual keys, as values for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.policy.tenants.key_records import terms_record
from atomr_infer.policy.tenants.key_table import End

if TYPE_CHECKING:
    from atomr_infer.gateway.admin.shown import Shown
    from atomr_infer.model.virtual_key import VirtualKey
    from atomr_infer.policy.tenants.key_table import Standing
    from atomr_infer.serving.limits.key_ring import KeyRing


def shown_key(ring: KeyRing, key: VirtualKey) -> Shown:
    """Return one key: what it may do, whether it opens anything, its secrets."""
    now_s = ring.wall_s()
    standings = ring.table.standings(key.id)
    return {
        "id": key.id,
        "team": None,
        "models": [],
        "priority": 0,
        "weight": 1.0,
        "expires_at_s": None,
        "rate_limits": None,
        "budgets": [],
        **terms_record(key),
        "state": _state(ring, key, now_s),
        "revoked_at_s": ring.table.revoked_at_s(key.id),
        "secrets": [_shown_secret(each, now_s) for each in standings],
    }


def _state(ring: KeyRing, key: VirtualKey, now_s: float) -> str:
    if ring.table.revoked_at_s(key.id) is not None:
        return str(End.REVOKED.value)
    if not ring.table.is_over(key.id, now_s):
        return "open"
    ends = {each.end for each in ring.table.standings(key.id)}
    for end in (End.NO_TEAM, End.EXPIRED):
        if end in ends:
            return str(end.value)
    return "no_secret"


def _shown_secret(standing: Standing, now_s: float) -> Shown:
    rotated = standing.end is End.ROTATED
    return {
        "shown": standing.secret.shown,
        "created_at_s": standing.secret.created_at_s,
        "is_open": standing.is_open(now_s),
        "rotated": rotated,
        "ends_at_s": standing.ended_at_s if standing.end is not End.REVOKED else None,
    }
