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

    Who hears one with a number that it does not know says how it stands itself: the
    other one has begun anew, and knows nothing.

    Attributes:
        born: number of the process that says it.
        runs: whether the node would run it.
        epoch: of the term by which it runs there; 0: it does not.
    """

    born: Epoch
    runs: bool
    epoch: Epoch


Said: TypeAlias = Frame | Here
