"""What nodes tell each other about a singleton, beside the election's frames.

Pure.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from atomr.gossip.voting import Frame
from atomr.gossip.voting.frames import Epoch


class Here(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="here"):
    """How a node stands to the singleton; said to each that comes up, and at changes.

    Who says it to one that comes up asks how that one stands: it may be that only one
    of both had lost sight of the other, or has begun anew, and knows nothing.

    Attributes:
        asks: whether the other one is to say it too.
        runs: whether the node would run it.
        epoch: of the term by which it runs there; 0: it does not.
    """

    asks: bool
    runs: bool
    epoch: Epoch


Said: TypeAlias = Frame | Here
