"""The dialects that the gateway speaks.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.anthropic.ingress import MESSAGES
from atomr_infer.wire.gemini.ingress import GEMINI
from atomr_infer.wire.open_inference.answer import OpenInferenceErrors
from atomr_infer.wire.openai.chat import ChatIngress
from atomr_infer.wire.openai.completions import CompletionsIngress
from atomr_infer.wire.openai.responses import ResponsesIngress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.errors import InferenceError
    from atomr_infer.wire.ingress import ErrorAnswer, Ingress

INGRESSES: Mapping[Dialect, Ingress] = {
    Dialect.OPENAI_CHAT: ChatIngress(),
    Dialect.OPENAI_COMPLETIONS: CompletionsIngress(),
    Dialect.OPENAI_RESPONSES: ResponsesIngress(),
    Dialect.ANTHROPIC: MESSAGES,
    Dialect.GEMINI: GEMINI,
}
"""How each dialect reads a request, writes answers, and refuses."""


class Refusing(Protocol):
    """How a dialect says no."""

    def refuse(self, error: InferenceError, request_id: str) -> ErrorAnswer:
        """Return the HTTP answer for an error of inference."""
        ...

    def plain(
        self, status: int, message: str, request_id: str, *, code: str | None = None
    ) -> ErrorAnswer:
        """Return the answer for what HTTP itself refuses."""
        ...


REFUSING: Mapping[Dialect, Refusing] = {
    **INGRESSES,
    Dialect.OPEN_INFERENCE: OpenInferenceErrors(),
}
"""How each dialect refuses, those included that ask for no generation."""
