"""One direction of the network between two nodes.

Messages of one link may overtake each other when their delays differ, as those
of two connections do.  A slow link is one direction that takes much longer than
the way round it: that is what makes an effect overtake its cause, which even
delays never do.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Quality:
    """How a link treats messages.

    Attributes:
        delay_s: each message takes at least that long.
        jitter_s: and up to that much longer, evenly drawn.
        loss: chance that a message is lost.
        duplicate: chance that it comes twice, each copy in its own time.
        reorder: chance that it is held back.
        reorder_s: for up to how long.
        in_order: whether none may overtake another, as on one connection.

    Raises:
        ValueError: a chance or a time is impossible.
    """

    delay_s: float = 0.0005
    jitter_s: float = 0.0015
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.0
    in_order: bool = False

    def __attrs_post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                value = getattr(self, name)
                raise ValueError(f"{name}={value!r}: expected a chance from 0 to 1")
        for name in ("delay_s", "jitter_s", "reorder_s"):
            if not getattr(self, name) >= 0.0:
                value = getattr(self, name)
                raise ValueError(f"{name}={value!r}: expected seconds, at least 0")


GOOD = Quality()
"""A local network: half a millisecond to two."""


class Link:
    """One direction between two nodes, as it is now.

    Attributes:
        quality: how it treats messages.
        is_cut: whether nothing gets through.
        last_at_s: when the latest message of an ordered link arrives.
    """

    __slots__ = ("is_cut", "last_at_s", "quality")

    def __init__(self, quality: Quality) -> None:
        """Start whole."""
        self.quality = quality
        self.is_cut = False
        self.last_at_s = 0.0
