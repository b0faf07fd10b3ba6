"""Virtual keys as plain values: as nodes and files keep them, and operators write them.

A record that holds what this version does not know is refused, and its key opens
nothing here: what is not known may be what the key must not do.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar, get_type_hints

import attrs

from atomr_infer.model.budget import Budget
from atomr_infer.model.rate_limits import PER_MINUTE, RateLimits
from atomr_infer.model.validation import InvalidValueError
from atomr_infer.model.virtual_key import KeySecret, VirtualKey

T = TypeVar("T")

_SECRET = ("key", "shown", "created_at_s")
_ENDS = ("revoked_at_s", "ends_at_s")


_LIMITS = {*PER_MINUTE, "max_concurrent"}


class KeyRecordError(ValueError):
    """A record is none of a virtual key, or of a version that is not known."""


TERMS = tuple(field.name for field in attrs.fields(VirtualKey) if field.name != "id")
"""The members of a key's terms."""


def terms_record(key: VirtualKey) -> dict[str, object]:
    """Return the terms of a key; its id is what they are kept under.

    >>> terms_record(VirtualKey(id="key_0123456789abcdef", name="ci"))
    {'name': 'ci'}
    """
    plain = _plain(key)
    assert isinstance(plain, dict), "an attrs value"
    del plain["id"]
    return plain


def key_of(id_: object, record: object) -> VirtualKey:
    """Return the key of a record.

    Raises:
        KeyRecordError: it is none, or holds what this version does not know.
    """
    members = _members(record, TERMS)
    try:
        return VirtualKey(id=id_, **terms_of(members))  # type: ignore[arg-type] # it is checked
    except (TypeError, ValueError) as error:
        raise KeyRecordError(str(error)) from error


def terms_of(members: Mapping[str, object]) -> dict[str, Any]:
    """Return the members of a key's terms as values.

    Raises:
        InvalidValueError: limits or budgets are none.
    """
    terms = dict(members)
    limits, budgets = terms.get("rate_limits"), terms.get("budgets")
    if limits is not None:
        terms["rate_limits"] = _value(RateLimits, "rate_limits", limits)
    if isinstance(budgets, (list, tuple)):
        terms["budgets"] = tuple(_value(Budget, "budgets", each) for each in budgets)
    return terms


def changed_terms(key: VirtualKey, members: Mapping[str, object]) -> dict[str, Any]:
    """Return the terms that a key is given, as values.

    Args:
        key: as it is.
        members: None: as a new key has it.  Those of ``rate_limits`` are put beside
            those that the key has; None takes one of them away.

    Raises:
        InvalidValueError: limits or budgets are none.

    >>> key = VirtualKey(id="key_0123456789abcdef", name="ci", priority=3)
    >>> changed_terms(key, {"priority": None})
    {'priority': 0}
    """
    given = dict(members)
    limits = given.get("rate_limits")
    if isinstance(limits, Mapping):
        now = terms_record(key).get("rate_limits")
        merged = {**(now if isinstance(now, Mapping) else {}), **limits}
        kept = {name: each for name, each in merged.items() if each is not None}
        given["rate_limits"] = kept if _LIMITS & kept.keys() else None
    unsaid = {field.name: field.default for field in attrs.fields(VirtualKey)}
    terms = terms_of(given)
    return {n: unsaid[n] if each is None else each for n, each in terms.items()}


def secret_record(
    secret: KeySecret, *, revoked_at_s: int | None = None, ends_at_s: int | None = None
) -> dict[str, object]:
    """Return a secret as far as it is kept; its digest is what it is kept under.

    Args:
        secret: the secret.
        revoked_at_s: when its key was revoked; None: it is not known to be.
        ends_at_s: when it ends for another one; None: it is not known to.
    """
    record = {name: getattr(secret, name) for name in _SECRET}
    ends = {"revoked_at_s": revoked_at_s, "ends_at_s": ends_at_s}
    return record | {name: at_s for name, at_s in ends.items() if at_s is not None}


def secret_of(digest: object, record: object) -> KeySecret:
    """Return the secret of a record.

    Raises:
        KeyRecordError: it is none, or holds what this version does not know.
    """
    members = _members(record, _SECRET + _ENDS)
    for name in _ENDS:
        members.pop(name, None)
    try:
        return KeySecret(digest=bytes.fromhex(str(digest)), **members)
    except (TypeError, ValueError) as error:
        raise KeyRecordError(str(error)) from error


def ends_of(record: object) -> tuple[int | None, int | None]:
    """Return when a secret's key was revoked, and when the secret ends for another one.

    Raises:
        KeyRecordError: it is no record of a secret.

    >>> ends_of({"key": "key_1", "revoked_at_s": 7})
    (7, None)
    """
    members = _members(record, _SECRET + _ENDS)
    revoked, ends = (members.get(name) for name in _ENDS)
    if not all(at_s is None or type(at_s) is int for at_s in (revoked, ends)):
        raise KeyRecordError("an end is no whole number")
    return revoked, ends


def _plain(value: object) -> object:
    """Return a value as what JSON and MessagePack carry, without its defaults."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if not attrs.has(type(value)):
        return value
    fields = attrs.fields(type(value))  # type: ignore[arg-type] # it has some
    given = [(f.name, getattr(value, f.name)) for f in fields]
    unsaid = {f.name: f.default for f in fields}
    return {name: _plain(each) for name, each in given if each != unsaid[name]}


def _value(cls: type[T], name: str, members: object) -> T:
    """Return an attrs value of plain members.

    Raises:
        InvalidValueError: it is none.
    """
    hints = get_type_hints(cls)
    known = [field.name for field in attrs.fields(cls)]  # type: ignore[arg-type] # as above
    if not isinstance(members, Mapping):
        raise InvalidValueError(name, members, "is no table")
    values: dict[str, Any] = {}
    for member, value in members.items():
        if member not in known:
            problem = f"is unknown; use {', '.join(known)}"
            raise InvalidValueError(name, member, problem)
        values[member] = _typed(hints[member], f"{name}.{member}", value)
    try:
        return cls(**values)
    except TypeError as error:
        required = [f.name for f in attrs.fields(cls) if f.default is attrs.NOTHING]  # type: ignore[arg-type] # as above
        problem = f"is not whole; it needs {', '.join(required)}"
        raise InvalidValueError(name, members, problem) from error


def _typed(hint: object, name: str, value: object) -> object:
    if not (isinstance(hint, type) and issubclass(hint, Enum)):
        return value
    try:
        return hint(value)
    except ValueError as error:
        words = " or ".join(repr(member.value) for member in hint)
        raise InvalidValueError(name, value, f"is not allowed; use {words}") from error


def _members(record: object, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise KeyRecordError(f"{type(record).__name__} is no record")
    unknown = sorted(str(name) for name in record if name not in known)
    if unknown:
        raise KeyRecordError(f"this version does not know {', '.join(unknown)}")
    return dict(record)
