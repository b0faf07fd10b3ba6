"""The bound of a mailbox, and what happens to a message that finds no room.

Pure.
"""

from __future__ import annotations

from enum import Enum

import attrs

from atomr.core.checks import check_count, check_member
from atomr.errors import short


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

    Raises:
        TypeError: one of them is of another type.
        ValueError: ``size`` is less than 1.
    """

    size: int
    overflow: Overflow

    def __attrs_post_init__(self) -> None:
        try:
            check_count("size", self.size, least=1)
            check_member("overflow", self.overflow, Overflow)
        except (TypeError, ValueError) as error:
            raise type(error)(f"MailboxLimit: {error}") from None


def check_mailbox(value: object) -> None:
    """Check the bound of a mailbox; None is one.

    Raises:
        TypeError: it is no :class:`MailboxLimit`.
    """
    if value is not None and not isinstance(value, MailboxLimit):
        limit = f"MailboxLimit({short(value)}, Overflow.REJECT)"
        remedy = f", as {limit}" if isinstance(value, int) else ""
        raise TypeError(f"mailbox={short(value)}: expected a MailboxLimit{remedy}")
