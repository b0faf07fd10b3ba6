"""The dialects that the gateway speaks.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.openai.chat import ChatIngress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.wire.ingress import Ingress

_CHAT = ChatIngress()

INGRESSES: Mapping[Dialect, Ingress] = {
    Dialect.OPENAI_CHAT: _CHAT,
    # An error needs a dialect before its route exists.
    Dialect.ANTHROPIC: _CHAT,
    Dialect.GEMINI: _CHAT,
}
"""How each dialect reads a request, writes answers, and refuses."""
