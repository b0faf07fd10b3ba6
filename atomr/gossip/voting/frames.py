"""What candidates and voters tell each other.

Each of these may be lost, come twice, or come so late that it is about another
attempt, or another life of who sent it.  So each names the attempt that it belongs
to: a candidate numbers its attempts, and one that it gave up is never taken up again.

Who sent a frame is known from its link; the boot id says in which life.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from atomr.gossip.codec import Codec

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]

LAST_EPOCH = (1 << 62) - 1

Epoch: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=LAST_EPOCH)]
"""Microseconds since 1970, mostly: there is room for 146,000 years."""

MOST_AHEAD = 1 << 48
"""Nine years: one message raises what a node knows by no more, so that no number that
a peer makes up ends the counting at once."""

Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=128)]

Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]


class GivenUp(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Whose attempt has ended by its own word, so that nothing is held by it.

    Attributes:
        name: of the candidate.
        boot: of its life.
        attempt: this one and all before it.
    """

    name: Name
    boot: Count
    attempt: Count


class Poll(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="poll"):
    """A candidate asks whether it would get the vote; nothing is given.

    Who hears no answers asks no more than this, and keeps no vote from others.

    Attributes:
        lease: its name.
        terms: fingerprint of the candidate's terms.
        boot: of the candidate's life.
        attempt: which, of that life.
    """

    lease: Name
    terms: Count
    boot: Count
    attempt: Count


class Free(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="free"):
    """A voter would give its vote.

    Attributes:
        lease: its name.
        boot: as polled.
        attempt: as polled.
        epoch: the largest that the voter knows of.
    """

    lease: Name
    boot: Count
    attempt: Count
    epoch: Epoch


class Ask(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="ask"):
    """A candidate asks for a vote, or for one that it has once more.

    Attributes:
        lease: its name.
        terms: fingerprint of the candidate's terms.
        boot: of the candidate's life.
        attempt: which, of that life.
        epoch: what the candidate's term would be, or is, called.
        sent_s: by the candidate's clock; its lease counts from here.
        heir_of: whose lease this is the handing over of; None: nobody's.
    """

    lease: Name
    terms: Count
    boot: Count
    attempt: Count
    epoch: Epoch
    sent_s: Seconds
    heir_of: GivenUp | None


class Granted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="granted"):
    """A voter gives its vote: to nobody else, for the time that the terms say.

    Attributes:
        lease: its name.
        boot: as asked.
        attempt: as asked.
        sent_s: as asked.
        epoch: the largest that the voter knows of, this one's among them.
        is_yours: whether that one is of this attempt.
        alone_s: for so long, at least, the vote can have counted for nobody else.
        since: the candidate's attempt from which on it has been nobody else's.
    """

    lease: Name
    boot: Count
    attempt: Count
    sent_s: Seconds
    epoch: Epoch
    is_yours: bool
    alone_s: Seconds = 0.0
    since: Count = 1 << 62


class Busy(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="busy"):
    """A voter has given its vote to another, or may have, before it restarted.

    Attributes:
        lease: its name.
        boot: as asked.
        attempt: as asked.
        holder: who has it; empty: not known.
        left_s: it is free after that, unless it is given again.
        epoch: the largest that the voter knows of.
    """

    lease: Name
    boot: Count
    attempt: Count
    holder: Name
    left_s: Seconds
    epoch: Epoch


class Yield(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="yield"):
    """A candidate holds nothing any more by this attempt, and will not.

    Attributes:
        lease: its name.
        boot: of the candidate's life.
        attempt: this one and all before it.
        epoch: the largest that the candidate knows of.
        heir: who may have it at once; empty: anybody.
    """

    lease: Name
    boot: Count
    attempt: Count
    epoch: Epoch
    heir: Name


class Refused(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="refused"):
    """A voter has other terms for this lease, and gives no vote.

    Attributes:
        lease: its name.
        boot: as asked.
        terms: the voter's.
    """

    lease: Name
    boot: Count
    terms: Count


def believed(known: int, said: int) -> int:
    """Return the largest epoch that is known after a peer has said one.

    Whoever was away for longer than that hears it again, and follows in steps.

    >>> believed(5, 7), believed(5, 3), believed(5, LAST_EPOCH) == 5 + MOST_AHEAD
    (7, 5, True)
    """
    return max(known, min(said, known + MOST_AHEAD))


Frame: TypeAlias = Poll | Free | Ask | Granted | Busy | Yield | Refused

_codec = Codec[Frame](Frame)

encode = _codec.encode
"""Returns the bytes of a frame."""

decode = _codec.decode
"""Returns the frame of these bytes.

Raises:
    msgspec.DecodeError: they are no frame.
"""
