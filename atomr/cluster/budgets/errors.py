"""What goes wrong with a node's part in budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.errors import AtomrError

if TYPE_CHECKING:
    from pathlib import Path


class BudgetsError(AtomrError):
    """Root of the errors of budgets."""


class NotRunningError(BudgetsError):
    """The process of the budgets does not run; nothing was reserved.

    Attributes:
        name: of the service.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            # Short: a StartError quotes little of its cause.
            f"service {name!r} does not run, or restarts: open_cluster() must have it"
            " before its users"
        )


class UnknownBudgetError(BudgetsError):
    """No budget of that name was opened on this node.

    Attributes:
        budget: its name.
    """

    def __init__(self, budget: str) -> None:
        self.budget = budget
        super().__init__(f"budget {budget!r} is not open here: open() comes first")


class ClosedBudgetError(BudgetsError):
    """A budget's time has been over for so long that its account is gone.

    Attributes:
        budget: its name.
    """

    def __init__(self, budget: str) -> None:
        self.budget = budget
        super().__init__(
            f"budget {budget!r}: its time is over and its account is closed; if that"
            " is wrong, this machine's clock is behind"
        )


class DamagedBudgetError(BudgetsError):
    """What the file holds of a budget cannot be read; others are not touched by it.

    Attributes:
        budget: its name.
        problem: what is wrong with it.
    """

    def __init__(self, budget: str, problem: str) -> None:
        self.budget = budget
        self.problem = problem
        super().__init__(
            f"budget {budget!r}: its record in the file is damaged ({problem}); nothing"
            " is spent from it here until its next period, or until the file is moved"
            " away and what this node held is reclaimed"
        )


class NoVoterError(BudgetsError):
    """This node is none of those that share the budgets.

    Attributes:
        node: its name.
        voters: those that do.
    """

    def __init__(self, node: str, voters: tuple[str, ...]) -> None:
        self.node = node
        self.voters = voters
        super().__init__(
            f"node {node!r} has no part in budgets: it is none of the voters"
            f" {', '.join(voters)}; name it among them, on all nodes"
        )


class LedgerStoreError(BudgetsError):
    """The file of the budgets cannot be used; nothing in it was changed.

    Attributes:
        path: of the file.
        problem: what is wrong, and what to do about it.
    """

    def __init__(self, path: Path | None, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"budgets' file {path}: {problem}")


class ReclaimError(BudgetsError):
    """Nothing was inherited from lost ledgers.

    Attributes:
        budget: its name.
        ledger: the one that stands in the way; empty: the time was over.
        reason: ``alive``, ``also lost``, the ledger that inherits already, or
            ``no answer``.
    """

    def __init__(self, budget: str, ledger: str, reason: str) -> None:
        self.budget = budget
        self.ledger = ledger
        self.reason = reason
        what = f"{ledger!r}: {reason}" if ledger else reason
        super().__init__(f"reclaim of budget {budget!r}: {what}")
