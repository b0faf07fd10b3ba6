"""The bound of a mailbox, and what happens to a message that finds no room.

Pure.
"""

from __future__ import annotations

from enum import Enum

import attrs


class Overflow(Enum):
    """What happens to a message for a full mailbox."""

    WAIT = "wait"
    """``send_wait`` and ``cast_wait`` wait for room; ``send`` and ``cast`` raise"""
    REJECT = "reject"
    """all of them raise ``MailboxFullError``"""
    DROP_OLDEST = "drop_oldest"
    """the message that has waited longest goes"""
    DROP_NEWEST = "drop_newest"
    """the message that found no room goes"""


@attrs.frozen
class MailboxLimit:
    """The bound of one mailbox; a field of a child specification.

    Attributes:
        size: messages that may wait, at least 1.
        overflow: what happens to one more.
    """

    size: int = attrs.field(validator=attrs.validators.ge(1))
    overflow: Overflow
