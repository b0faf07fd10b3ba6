"""Virtual keys as nodes and files keep them: plain values, and back.

A record that holds what this version does not know is refused, and its key opens
nothing here: what is not known may be what the key must not do.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from atomr_infer.model.virtual_key import KeySecret, VirtualKey


class KeyRecordError(ValueError):
    """A record is none of a virtual key, or of a version that is not known."""


_TERMS = tuple(field.name for field in attrs.fields(VirtualKey) if field.name != "id")
_SECRET = ("key", "shown", "created_at_s")


def terms_record(key: VirtualKey) -> dict[str, object]:
    """Return the terms of a key; its id is what they are kept under.

    >>> terms_record(VirtualKey(id="key_0123456789abcdef", name="ci"))
    {'name': 'ci'}
    """
    return {
        name: _plain(getattr(key, name))
        for name in _TERMS
        if getattr(key, name) != getattr(attrs.fields(VirtualKey), name).default
    }


def key_of(id_: object, record: object) -> VirtualKey:
    """Return the key of a record.

    Raises:
        KeyRecordError: it is none, or holds what this version does not know.
    """
    members = _members(record, _TERMS)
    try:
        return VirtualKey(id=id_, **members)  # type: ignore[arg-type] # it is checked
    except (TypeError, ValueError) as error:
        raise KeyRecordError(str(error)) from error


def secret_record(secret: KeySecret) -> dict[str, object]:
    """Return a secret as far as it is kept; its digest is what it is kept under."""
    return {name: getattr(secret, name) for name in _SECRET}


def secret_of(digest: object, record: object) -> KeySecret:
    """Return the secret of a record.

    Raises:
        KeyRecordError: it is none, or holds what this version does not know.
    """
    members = _members(record, _SECRET)
    try:
        return KeySecret(digest=bytes.fromhex(str(digest)), **members)
    except (TypeError, ValueError) as error:
        raise KeyRecordError(str(error)) from error


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _members(record: object, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise KeyRecordError(f"{type(record).__name__} is no record")
    unknown = sorted(str(name) for name in record if name not in known)
    if unknown:
        raise KeyRecordError(f"this version does not know {', '.join(unknown)}")
    return dict(record)
