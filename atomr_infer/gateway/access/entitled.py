"""What a request may do by the virtual key that it showed.

Its model must be one of the key's, its priority is the key's or less, and it says who
asks, for limits, budgets and queues.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs

from atomr_infer.errors import (
    InvalidRequestError,
    ModelNotAllowedError,
    ModelNotFoundError,
)
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.tensors import InferRequest
from atomr_infer.model.virtual_key import MAX_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.asker import Visitor
    from atomr_infer.model.virtual_key import VirtualKey

R = TypeVar("R", ExecuteBatch, EmbedRequest, InferRequest)

PRIORITY = "x-atomr-priority"
"""The header in which a client says that its request may wait."""


def entitled(request: R, visitor: Visitor, headers: Mapping[str, str]) -> R:
    """Return a request with who asks, and with its priority.

    Args:
        request: its model is the public name.
        visitor: who asks.
        headers: by lower-case name.

    Raises:
        ModelNotAllowedError: the key may not use its model.
        InvalidRequestError: its priority is no whole number.
    """
    key, priority = visitor.key, visitor.priority
    if key is not None:
        check_model(key, request.model)
    if PRIORITY in headers:
        priority = _priority(headers[PRIORITY], priority)
    if request.asker is visitor.asker and request.priority == priority:
        return request
    return attrs.evolve(request, asker=visitor.asker, priority=priority)


def check_model(key: VirtualKey, model: str) -> None:
    """Refuse a model that a key may not use.

    Raises:
        ModelNotAllowedError: it may not.
    """
    if key.models and not key.may_use(model):
        allowed = ", ".join(map(repr, key.models))
        raise ModelNotAllowedError(
            f"the virtual key {key.name!r} may not use the model {model!r}; it may "
            f"use {allowed}",
            param="model",
        )


def discreet(error: InferenceError, visitor: Visitor) -> InferenceError:
    """Return an error as a visitor may hear it: not of models that it may not use."""
    key = visitor.key
    if key is None or not key.models or not isinstance(error, ModelNotFoundError):
        return error
    return ModelNotFoundError("the model does not exist", param="model")


def _priority(wish: str, most: int) -> int:
    """Return a wish, as far as it may be had.

    >>> _priority("-3", 5), _priority("9", 5)
    (-3, 5)
    """
    try:
        priority = int(wish)
    except ValueError as error:
        raise InvalidRequestError(
            f"{PRIORITY}: {wish[:40]!r} is no whole number", param=PRIORITY
        ) from error
    return max(-MAX_PRIORITY, min(priority, most))
