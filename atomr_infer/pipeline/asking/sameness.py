"""Which requests are the same.

Two requests are the same when everything is that a model could answer by, and who
asks.  What is about their transport is left out: ids, streaming, priority, bounds.

Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, cast

import attrs

if TYPE_CHECKING:
    from atomr_infer.model.asker import Asker
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.embeddings import EmbedRequest

# Of the transport, or another form of what is in the key as well.
_NO_PART = frozenset(
    {
        "request_id",
        "model",
        "stream",
        "source",
        "session",
        "priority",
        "timeout_s",
        "asker",
        "user",
        "inputs",
    }
)


def is_deterministic(batch: ExecuteBatch) -> bool:
    """Whether the client asks for the answer that is always the same.

    >>> from atomr_infer.model.batch import ExecuteBatch, Sampling
    >>> ask = ExecuteBatch(request_id="r", model="m", messages=())
    >>> is_deterministic(ask)
    False
    >>> is_deterministic(attrs.evolve(ask, sampling=Sampling(temperature=0.0)))
    True
    """
    return batch.sampling.temperature == 0 or batch.sampling.seed is not None


def key_of(request: ExecuteBatch | EmbedRequest, *, shared_by: str) -> bytes:
    """Return what requests that are the same have in common, and no others.

    Args:
        request: what is asked; of texts to embed, all but the texts.
        shared_by: who may have each other's answers: ``key``, ``team`` or ``all``.
    """
    hashed = hashlib.sha256()
    _take(hashed, type(request).__name__)
    _take(hashed, _whose(request.asker, shared_by))
    for field in attrs.fields(type(request)):
        if field.name not in _NO_PART:
            _take(hashed, field.name)
            _take(hashed, getattr(request, field.name))
    return hashed.digest()


def _whose(asker: Asker | None, shared_by: str) -> tuple[str, str] | None:
    """Return whom an answer is for; None: everybody, or all without a virtual key."""
    if asker is None or shared_by == "all":
        return None
    if shared_by == "team" and asker.team is not None:
        return ("team", asker.team)
    return ("key", asker.key)


def key_of_input(key: bytes, each: str | tuple[int, ...]) -> bytes:
    """Return the key of one of a request's texts, or of its token ids."""
    hashed = hashlib.sha256(key)
    _take(hashed, each)
    return hashed.digest()


def _take(hashed: hashlib._Hash, value: object) -> None:
    """Hash a value so that no other one gives the same bytes.

    Each is preceded by its type and its length: a text of a refusal is not one of an
    answer, and two short texts are not one long.
    """
    if attrs.has(type(value)):
        fields = attrs.fields(cast("attrs.AttrsInstance", value).__class__)
        _begin(hashed, value, len(fields))
        for field in fields:
            _take(hashed, getattr(value, field.name))
    elif isinstance(value, Mapping):
        _begin(hashed, {}, len(value))
        for name in sorted(value, key=repr):
            _take(hashed, name)
            _take(hashed, value[name])
    elif isinstance(value, (tuple, list, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, frozenset) else value
        _begin(hashed, (), len(value))
        for item in items:
            _take(hashed, item)
    else:
        _take_plain(hashed, value)


def _take_plain(hashed: hashlib._Hash, value: object) -> None:
    if isinstance(value, Enum):
        data = value.name.encode()
    elif isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
    else:
        data = repr(value).encode("utf-8", "surrogatepass")
    _begin(hashed, value, len(data))
    hashed.update(data)


def _begin(hashed: hashlib._Hash, value: object, length: int) -> None:
    hashed.update(f"{type(value).__name__}:{length}:".encode())
