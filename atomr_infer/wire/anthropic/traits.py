"""What the models behind the Messages API differ in.

Pure.
"""

from __future__ import annotations

from enum import Enum

import attrs

from atomr_infer.model.asks import Effort
from atomr_infer.model.capabilities import ThinkingStyle


class ThinkingOff(Enum):
    """How a model is told not to think.

    OMITTED: by saying nothing.  DISABLED: by saying so.  NEVER: it always
    thinks, and the least effort is as near as it gets.
    """

    OMITTED = "omitted"
    DISABLED = "disabled"
    NEVER = "never"


PLAIN_EFFORTS = (Effort.LOW, Effort.MEDIUM, Effort.HIGH)
"""The efforts of the first models that have any."""

ALL_EFFORTS = (*PLAIN_EFFORTS, Effort.XHIGH, Effort.MAX)
"""Every effort that the API has a word for, least first."""


@attrs.frozen(kw_only=True)
class ModelTraits:
    """What one model takes, beyond what every model does.

    Attributes:
        max_output_tokens: most that it writes; sent when a request says nothing,
            as the API wants a limit.
        context_tokens: prompt and output together.
        sampling: which of ``temperature``, ``top_p`` and ``top_k`` it takes.
        both_of: True when it takes ``temperature`` and ``top_p`` together.
        prefill: True when it goes on with an assistant's last turn.
        thinking: how it is told to think.
        off: how it is told not to.
        efforts: the efforts that it takes, least first; (): it takes none.
        json_schema: True when it takes ``output_config.format`` and strict tools.
        system_turns: True when a system message may stand behind a user's turn.
        documents: True when it reads PDF.
    """

    max_output_tokens: int
    context_tokens: int
    sampling: frozenset[str] = frozenset()
    both_of: bool = False
    prefill: bool = False
    thinking: ThinkingStyle = ThinkingStyle.ADAPTIVE
    off: ThinkingOff = ThinkingOff.DISABLED
    efforts: tuple[Effort, ...] = ALL_EFFORTS
    json_schema: bool = True
    system_turns: bool = False
    documents: bool = True
