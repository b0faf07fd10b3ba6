"""Budgets that all nodes of a cluster share, and never overspend.

``docs/reference/limits.md`` says how they are used, and what is promised.
"""

from atomr.cluster.budgets.account import Reservation
from atomr.cluster.budgets.errors import (
    BudgetsError,
    ClosedBudgetError,
    DamagedBudgetError,
    LedgerStoreError,
    NotRunningError,
    NoVoterError,
    ReclaimError,
    UnknownBudgetError,
)
from atomr.cluster.budgets.parts import BudgetState
from atomr.cluster.budgets.service import BudgetService
from atomr.cluster.budgets.terms import BudgetTerms
from atomr.gossip.ledger import Overran, Refused

__all__ = [
    "BudgetService",
    "BudgetState",
    "BudgetTerms",
    "BudgetsError",
    "ClosedBudgetError",
    "DamagedBudgetError",
    "LedgerStoreError",
    "NoVoterError",
    "NotRunningError",
    "Overran",
    "ReclaimError",
    "Refused",
    "Reservation",
    "UnknownBudgetError",
]
