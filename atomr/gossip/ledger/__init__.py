"""Budgets: units that are spent once, by all nodes together, and never overspent.

Each node has a ledger with *rights*, which it spends without asking anybody, and
moves to others that need them.  What a ledger does makes only its own rights
fewer, and is on its disk before anybody profits from it.  So nothing is
overspent, whatever the network and the machines do; ``docs/reference/limits.md``
has the promise, and why it holds.

    ledger = Ledger(budget, name="ams-1", ledger=f"ams-1/{boot:x}", record=file)
    held = ledger.hold(50_000, deadline_s=now_s + 5.0, now_s=now_s)
    ledger.settle(held, 31_250, now_s=later_s)

Who drives it delivers each ``Send``, writes and syncs each ``Persist`` and says
``persisted``, gives what comes to ``receive``, and calls ``advance`` at
``next_deadline_s``, which it reads after each call.

Pure: no clock, no socket, no disk.
"""

from atomr.gossip.ledger.budget import Budget
from atomr.gossip.ledger.frames import (
    Frame,
    Need,
    Record,
    Row,
    Rows,
    decode,
    decode_record,
    encode,
)
from atomr.gossip.ledger.ledger import Ledger
from atomr.gossip.ledger.matrix import Matrix
from atomr.gossip.ledger.outcomes import (
    Answered,
    Balance,
    Effect,
    Held,
    Outcome,
    Overran,
    Persist,
    Reclaimed,
    ReclaimFailed,
    Refused,
    RolledBack,
    Send,
    Waiting,
)

__all__ = [
    "Answered",
    "Balance",
    "Budget",
    "Effect",
    "Frame",
    "Held",
    "Ledger",
    "Matrix",
    "Need",
    "Outcome",
    "Overran",
    "Persist",
    "ReclaimFailed",
    "Reclaimed",
    "Record",
    "Refused",
    "RolledBack",
    "Row",
    "Rows",
    "Send",
    "Waiting",
    "decode",
    "decode_record",
    "encode",
]
