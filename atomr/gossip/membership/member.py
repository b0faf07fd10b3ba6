"""What is said of a member, and which of two sayings counts.

Everything that nodes tell each other of a member is a :class:`Member`, and any
two of one name are ordered, so all nodes that heard the same end up with the same
one, in whatever order they heard it:

1. the greater boot id counts: a node that restarted never waits until the rumours
   of its old life have died out, and they cannot come back;
2. within a life the greater incarnation counts, which only the node itself
   increases: to say that it is alive after all, and to say goodbye;
3. then the worse status: ``ALIVE`` < ``SUSPECT`` < ``DEAD`` < ``LEFT``.

It is one struct for the wire and for the table: most of what is heard is already
known, and is compared and dropped.

Pure.

Source: Das, Gupta, Motivala, "SWIM", 2002, section 4.2, for 2 and 3.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

import msgspec

from atomr.crdt.origin import Origin

MAX_TEXT = 255

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]
INCARNATIONS = 1 << 53
"""None reaches it by itself; one that a broken peer says is not outbid."""

Count = Annotated[int, msgspec.Meta(ge=0, lt=INCARNATIONS)]


class Status(IntEnum):
    """What a node is held to be; the worse is the greater."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3

    @property
    def is_live(self) -> bool:
        """Whether the node is taken to run; a suspect is, until its time is up."""
        return self <= Status.SUSPECT


class Member(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is said of one life of one node.

    Attributes:
        origin: name and boot id.
        address: where it is reached.
        incarnation: how often it had something new to say of itself.
        status: what it is held to be.
        meta: 64-bit hash of what the node says of itself elsewhere; changes with
            the incarnation.
        accusers: names of nodes that got no answer from a suspect; sorted.
        age_s: whole seconds since it was found dead, or left; 0 for a live one.
            Without it, nodes that forget at different times would remind each
            other for ever.
    """

    origin: Origin
    address: Text
    incarnation: Count
    status: Status
    meta: int = 0
    accusers: Annotated[tuple[Text, ...], msgspec.Meta(max_length=16)] = ()
    age_s: Count = 0

    @property
    def name(self) -> str:
        """The node's name, the same in each life."""
        return self.origin.name

    def supersedes(self, other: Member) -> bool:
        """Return whether this counts and ``other``, of the same name, does not.

        Neither does when they differ in accusers or age only.

        >>> a = Member(Origin("a", 1), "a:1", 0, Status.ALIVE)
        >>> msgspec.structs.replace(a, status=Status.DEAD).supersedes(a)
        True
        >>> again = msgspec.structs.replace(a, origin=Origin("a", 2))
        >>> again.supersedes(msgspec.structs.replace(a, status=Status.LEFT))
        True
        """
        return precedence(self) > precedence(other)


def precedence(member: Member) -> tuple[int, int, int]:
    """Return by what two members of one name are compared."""
    return member.origin.boot, member.incarnation, member.status
