"""What a loaded runner can do, so that a request it cannot serve never starts.

Pure.
"""

from __future__ import annotations

from enum import Enum

import attrs

from atomr_infer.errors import UnsupportedFeatureError
from atomr_infer.model.batch import ExecuteBatch, RawPart, Sampling


class Feature(Enum):
    """A thing that a request may need and not every runtime has."""

    TOOLS = "tools"
    STRUCTURED_OUTPUT = "structured output"
    LOGPROBS = "logprobs"
    MULTIMODAL = "content parts other than text"


_FEATURE_BY_FIELD = {
    "tools": Feature.TOOLS,
    "tool_choice": Feature.TOOLS,
    "functions": Feature.TOOLS,
    "function_call": Feature.TOOLS,
    "response_format": Feature.STRUCTURED_OUTPUT,
    "logprobs": Feature.LOGPROBS,
    "top_logprobs": Feature.LOGPROBS,
}

# Asking for what is the default anyway asks for nothing.
_NEUTRAL = {
    "tools": (b"[]", b"null"),
    "tool_choice": (b'"none"', b'"auto"', b"null"),
    "response_format": (b'{"type":"text"}', b'{"type": "text"}', b"null"),
    "logprobs": (b"false", b"null"),
    "top_logprobs": (b"0", b"null"),
}

# Members that repeat, in another spelling, what ``sampling`` already says.
_ALIASES = frozenset({"max_completion_tokens"})

# Members that are about the request's bookkeeping and not about the answer.
_BOOKKEEPING = frozenset({"user", "metadata", "store", "safety_identifier"})

_SILENT = _ALIASES | _BOOKKEEPING

ALL_SAMPLING = frozenset(field.name for field in attrs.fields(Sampling))
"""Every sampling field, for a runtime that takes them all."""


@attrs.frozen(kw_only=True)
class Capabilities:
    """What one loaded model behind one runtime can do.

    Attributes:
        features: what it has beyond text chat.
        sampling: the fields of :class:`Sampling` that change its output.
        max_concurrency: requests that it runs well at once; the default of
            ``Serving.max_concurrency``.
        context_tokens: prompt and output together; None: not known.
        passes_extra: True when request members that the canonical form does
            not know reach the model.
    """

    features: frozenset[Feature] = frozenset()
    sampling: frozenset[str] = frozenset({"max_tokens"})
    max_concurrency: int = 1
    context_tokens: int | None = None
    passes_extra: bool = False


def check_request(batch: ExecuteBatch, capabilities: Capabilities) -> tuple[str, ...]:
    """Refuse what cannot be served, and name what will have no effect.

    Returns:
        The request members that will be ignored, for a warning header.

    Raises:
        UnsupportedFeatureError: the request needs a feature that is absent;
            ``param`` names the member.
    """
    for name, value in batch.extra.items():
        feature = _FEATURE_BY_FIELD.get(name)
        if feature is None or value in _NEUTRAL.get(name, ()):
            continue
        _require(feature, name, capabilities)
    for position, message in enumerate(batch.messages):
        _check_parts(position, message.content, capabilities)
    ignored = batch.sampling.given() - capabilities.sampling
    if "n" in ignored:
        raise UnsupportedFeatureError(
            f"this model gives one answer per request; n is {batch.sampling.n}",
            param="n",
        )
    if not capabilities.passes_extra:
        ignored |= batch.extra.keys() - _FEATURE_BY_FIELD.keys() - _SILENT
    return tuple(sorted(ignored))


def _check_parts(position: int, content: object, capabilities: Capabilities) -> None:
    if not isinstance(content, tuple):
        return
    if any(isinstance(part, RawPart) for part in content):
        _require(Feature.MULTIMODAL, f"messages[{position}].content", capabilities)


def _require(feature: Feature, param: str, capabilities: Capabilities) -> None:
    if feature not in capabilities.features:
        raise UnsupportedFeatureError(
            f"this model does not support {feature.value} (request field {param!r})",
            code="unsupported_parameter",
            param=param,
        )
