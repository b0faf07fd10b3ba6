"""Which budgets are over for so long that nothing of them is kept.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.cluster.budgets.terms import KEEP_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.cluster.budgets.account import Account
    from atomr.cluster.budgets.kept import Kept


def to_close(
    kept: Mapping[str, Kept], accounts: Mapping[str, Account], wall_s: float
) -> dict[str, float]:
    """Return when those ended that are to be closed, by name.

    Args:
        kept: what the file holds, also of budgets that nobody has opened.
        accounts: those that are open; one that calls hold units of stays.
        wall_s: Unix time.
    """
    closed: dict[str, float] = {}
    for name in {**kept, **accounts}:
        account = accounts.get(name)
        terms = None if account is None else account.terms
        ends_at_s = kept[name].ends_at_s if terms is None else terms.ends_at_s
        if ends_at_s is None or (account is not None and account.reserved):
            continue
        if ends_at_s + (KEEP_S if terms is None else terms.kept_s) <= wall_s:
            closed[name] = ends_at_s
    return closed
