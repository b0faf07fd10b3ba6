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
from atomr_infer.model.virtual_key import MAX_PRIORITY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.asker import Visitor
    from atomr_infer.model.virtual_key import VirtualKey
    from atomr_infer.policy.model_table import ModelTable

R = TypeVar("R", ExecuteBatch, EmbedRequest)

PRIORITY = "x-atomr-priority"
"""The header in which a client says that its request may wait."""


def entitled(
    request: R, visitor: Visitor, headers: Mapping[str, str], table: ModelTable
) -> R:
    """Return a request with who asks, and with its priority.

    Args:
        request: its model is the public name.
        visitor: who asks.
        headers: by lower-case name.
        table: what is served.

    Raises:
        ModelNotAllowedError: the key may not use its model.
        ModelNotFoundError: nobody serves it; nothing is said of other models, which
            the key may not know of.
        InvalidRequestError: its priority is no whole number.
    """
    key = visitor.key
    if key is None and PRIORITY not in headers:
        return request
    if key is not None and key.models:
        check_model(key, request.model, table)
    priority = _priority(headers.get(PRIORITY), 0 if key is None else key.priority)
    return attrs.evolve(request, asker=visitor.asker, priority=priority)


def check_model(key: VirtualKey, model: str, table: ModelTable) -> None:
    """Refuse a model that a key may not use, or that nobody serves."""
    if not key.may_use(model):
        allowed = ", ".join(map(repr, key.models))
        raise ModelNotAllowedError(
            f"the virtual key {key.name!r} may not use the model {model!r}; it may "
            f"use {allowed}",
            param="model",
        )
    try:
        table.resolve(model)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"the model {model!r} does not exist", param="model"
        ) from error


def _priority(wish: str | None, most: int) -> int:
    """Return a wish, as far as it may be had.

    >>> _priority("-3", 5), _priority("9", 5), _priority(None, 5)
    (-3, 5, 5)
    """
    if wish is None:
        return most
    try:
        priority = int(wish)
    except ValueError as error:
        raise InvalidRequestError(
            f"{PRIORITY}: {wish[:40]!r} is no whole number", param=PRIORITY
        ) from error
    return max(-MAX_PRIORITY, min(priority, most))
