"""The dialects that the gateway speaks.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.anthropic.ingress import MESSAGES
from atomr_infer.wire.gemini.ingress import GEMINI
from atomr_infer.wire.openai.chat import ChatIngress
from atomr_infer.wire.openai.completions import CompletionsIngress
from atomr_infer.wire.openai.responses import ResponsesIngress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.wire.ingress import Ingress

INGRESSES: Mapping[Dialect, Ingress] = {
    Dialect.OPENAI_CHAT: ChatIngress(),
    Dialect.OPENAI_COMPLETIONS: CompletionsIngress(),
    Dialect.OPENAI_RESPONSES: ResponsesIngress(),
    Dialect.ANTHROPIC: MESSAGES,
    Dialect.GEMINI: GEMINI,
}
"""How each dialect reads a request, writes answers, and refuses."""
