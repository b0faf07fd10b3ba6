"""What LiteLLM's errors mean.

LiteLLM answers much with 400 and names its own class of error in the text; that
class says more than the status.

Pure: the wall clock is an argument.

Source: LiteLLM documentation, "Exception Mapping".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer import errors
from atomr_infer_openai.faults import fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.secret import Secret
    from atomr_infer.wire.wrong_place import Place

_CLASSES: dict[str, type[errors.InferenceError]] = {
    "ContextWindowExceededError": errors.ContextLengthError,
    "ContentPolicyViolationError": errors.ContentFilterError,
    "RateLimitError": errors.RateLimitedError,
    "ServiceUnavailableError": errors.UpstreamError,
    "InternalServerError": errors.UpstreamError,
    "APIConnectionError": errors.UpstreamError,
    "AuthenticationError": errors.UpstreamAuthError,
    "Budget has been exceeded": errors.UpstreamAuthError,
    "ExceededBudget": errors.UpstreamAuthError,
}


def litellm_fault(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_epoch_s: float,
    secret: Secret | None = None,
    place: Place,
) -> errors.InferenceError:
    """Return the error of inference for an answer that is not one.

    Args:
        status: any but 200.
        headers: by lower-case name.
        body: as much of it as was read.
        now_epoch_s: the wall clock, for ``retry-after`` as a date.
        secret: our key, blotted out should the proxy repeat it.
        place: who was asked.
    """
    plain = fault(
        status, headers, body, now_epoch_s=now_epoch_s, secret=secret, place=place
    )
    for name, error_class in _CLASSES.items():
        if name in plain.message and not isinstance(plain, error_class):
            return error_class(
                plain.message,
                retry_after_s=plain.retry_after_s,
                status=status,
            )
    return plain
