"""What the budgets of two nodes tell each other.

::

    Hello ──▶   ◀── Hello (is_answer)     which file each has
    Carried ──▶                           a frame of one budget's ledger

A node with a new file may be a new node, or one that has lost its file, and that has
made its part of running budgets already.  The others know: each remembers the first
file that it heard of, and says so.

Pure.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from atomr.gossip.ledger import Frame


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False, tag_field="t"):
    """Common to all messages."""


class Hello(_Message, frozen=True, array_like=True, gc=False, tag=1):
    """Says which file the sender has.

    Attributes:
        file: its id.
        first: in an answer, the first file of the receiver that the sender ever heard
            of, as its disk knows.
        is_answer: whether it answers a hello, and so asks for none.
    """

    file: str
    first: str
    is_answer: bool


class Carried(_Message, frozen=True, array_like=True, gc=False, tag=2):
    """A frame of one budget's ledger, which names the budget.

    Attributes:
        frame: what it says.
    """

    frame: Frame


Message: TypeAlias = Hello | Carried
