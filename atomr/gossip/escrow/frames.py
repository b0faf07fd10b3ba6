"""What lessees and homes tell each other.

Each of these may be lost, come twice, or come so late that its sender has been
restarted.  So none of them says "five more": what is granted and what is
returned are totals of an account, each written by one side only and growing
only, and the reader takes the larger of what it knows and what it reads.

An account is opened by three messages, as a connection of TCP is, and for the
same reason: an old ``Open`` that comes again gets an ``Offer`` that nobody takes
up, and an account whose number is no longer known is never opened again.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

import msgspec

from atomr.gossip import voting
from atomr.gossip.codec import Codec

NO_CAP = -1
"""A lessee may hold what it needs."""


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Open(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="open"):
    """A lessee asks for an account.

    Attributes:
        limit: its name.
        terms: fingerprint of the lessee's terms.
        boot: of the lessee's life.
        nonce: of this attempt, new for each.
    """

    limit: str
    terms: Count
    boot: Count
    nonce: Count


class Offer(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="offer"):
    """A home offers an account, which opens with the first ``Ask`` that names it.

    Attributes:
        limit: its name.
        boot: as asked.
        nonce: as asked.
        home_boot: of the home's life.
        account: a number that this life has not given before.
    """

    limit: str
    boot: Count
    nonce: Count
    home_boot: Count
    account: Count


class Ask(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="ask"):
    """A lessee says how it stands, and renews its lease.

    Attributes:
        limit: its name.
        home_boot: of the life that offered the account.
        account: which.
        sent_s: by the lessee's clock; the lease counts from here.
        seen: largest total granted that the lessee knows of.
        returned: total given back; at most ``seen``.
        want: how many more it could use.
        rate: what it is asked for a second, granted or not.
    """

    limit: str
    home_boot: Count
    account: Count
    sent_s: float
    seen: Count
    returned: Count
    want: Count
    rate: float


class Grant(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="grant"):
    """A home says what it has lent.

    Attributes:
        limit: its name.
        home_boot: of the home's life.
        account: which.
        granted: total lent.
        echo_s: the latest ``sent_s`` that the home has seen.
        cap: hold no more than that, as permits cool; ``NO_CAP``: no matter.
        is_firm: whether what is beyond it may not be used any more, either: the limit
            was lowered, and is not what it was when that was lent.
        wait_s: so long the home lends nothing that others may have lent before it.
    """

    limit: str
    home_boot: Count
    account: Count
    granted: Count
    echo_s: float
    cap: int
    is_firm: bool = False
    wait_s: Annotated[float, msgspec.Meta(ge=0.0, le=1e12)] = 0.0


class Closed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="closed"):
    """A home does not know the account, or no longer.

    Attributes:
        limit: its name.
        home_boot: as asked; that of an earlier life, often.
        account: as asked.
    """

    limit: str
    home_boot: Count
    account: Count


class Refused(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="refused"):
    """A home has other terms for this limit, or does not think itself the home.

    Attributes:
        limit: its name.
        terms: the home's; 0: it knows no such limit.
        boot: as asked.
        nonce: as asked.
    """

    limit: str
    terms: Count
    boot: Count
    nonce: Count


class Elsewhere(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="other"):
    """A voter does not lend permits of a limit now.

    Attributes:
        limit: its name.
        home: who does, as far as it knows; empty: it does not know.
    """

    limit: str
    home: str


class Voting(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="vote"):
    """What voters tell each other about who lends; it is of no limit.

    Attributes:
        said: the election's frame.
    """

    said: voting.Frame

    limit: ClassVar[str] = ""


class Used(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="used"):
    """A node says what it used of a soft limit.

    Attributes:
        limit: its name.
        boot: of the node's life.
        seq: counts these messages in that life.
        count: permits used within the window that ends now.
    """

    limit: str
    boot: Count
    seq: Count
    count: Count


Frame: TypeAlias = (
    Open | Offer | Ask | Grant | Closed | Refused | Elsewhere | Voting | Used
)

_codec = Codec[Frame](Frame)

encode = _codec.encode
"""Returns the bytes of a frame."""

decode = _codec.decode
"""Returns the frame of these bytes.

Raises:
    msgspec.DecodeError: they are no frame.
"""
