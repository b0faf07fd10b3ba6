"""What an attempt cost that ended before its upstream could say.

A provider bills what it made, whoever gets to see it; so a cut or cancelled
attempt is counted from what came, and marked as an estimate.

Pure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.batch import Usage

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch

_CHARS_PER_TOKEN = 4


def interrupted_usage(
    batch: ExecuteBatch, output_chars: int, counted: Usage | None = None
) -> Usage:
    """Return an estimate for an attempt that gave so many characters.

    Args:
        batch: what was asked.
        output_chars: what came of the answer.
        counted: what the upstream had said by then: its prompt is known.

    >>> from atomr_infer.model.batch import ExecuteBatch, Message, Role
    >>> asked = ExecuteBatch(request_id="r", model="m",
    ...     messages=(Message(Role.USER, "How are you?"),))
    >>> interrupted_usage(asked, 9)
    Usage(input_uncached=3, output_text=3, estimated=True, interrupted=True)
    """
    output = math.ceil(output_chars / _CHARS_PER_TOKEN)
    if counted is not None:
        return attrs.evolve(
            counted,
            output_text=max(counted.output_text, output),
            estimated=True,
            interrupted=True,
        )
    prompt_chars = sum(len(message.text) for message in batch.messages)
    return Usage(
        input_uncached=math.ceil(prompt_chars / _CHARS_PER_TOKEN),
        output_text=output,
        estimated=True,
        interrupted=True,
    )
