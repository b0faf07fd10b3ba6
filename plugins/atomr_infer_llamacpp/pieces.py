"""What a run of the model is given.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs


@attrs.frozen
class Piece:
    """Tokens of one sequence in a run.

    Attributes:
        seq: the sequence.
        start: where the first of them stands in it.
        tokens: the tokens.
        wants_logits: whether those behind the last one are wanted.
    """

    seq: int
    start: int
    tokens: Sequence[int]
    wants_logits: bool = True
