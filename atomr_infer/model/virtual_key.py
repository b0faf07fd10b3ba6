"""Virtual keys: keys of the gateway's own, each with what it may do.

A key is its *terms* (:class:`VirtualKey`), which have an id and no secret, and one
secret or, while an old one is being replaced, two (:class:`KeySecret`).  What belongs
to a key belongs to its id, so it stays when the secret changes.

Pure.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.model.budget import Budget, are_budgets
from atomr_infer.model.budget import budgets as as_budgets
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    at_most,
    identifier,
    non_empty,
    positive,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_ID = re.compile(r"key_[0-9a-f]{16}")
_MAX_NAME_CHARS = 128
_MAX_MODELS = 256
_WEIGHTS = 0.001, 1000.0
_DIGEST_BYTES = 32

# The year 9999: dates end there.
_MAX_TIME_S = 253_402_300_799

MAX_PRIORITY = 100
"""The highest priority that a key can have."""


def _is_id(_: object, field: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise InvalidValueError(field.name, value, "is no id of a virtual key")


def _is_digest(_: object, field: attrs.Attribute[bytes], value: bytes) -> None:
    if len(value) != _DIGEST_BYTES:
        problem = f"is of another length than {_DIGEST_BYTES} bytes"
        raise InvalidValueError(field.name, len(value), problem)


def short_name(_: object, field: attrs.Attribute[str], value: object) -> None:
    """Require a name that fits a line of a table."""
    identifier(_, field, value)
    if isinstance(value, str) and len(value) > _MAX_NAME_CHARS:
        problem = f"is longer than {_MAX_NAME_CHARS} characters"
        raise InvalidValueError(field.name, value, problem)


def is_weight(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Require a share that clocks of a queue can be divided by."""
    positive(_, field, value)
    least, most = _WEIGHTS
    if not isinstance(value, (int, float)) or not least <= value <= most:
        problem = f"must be from {least:g} to {most:g}"
        raise InvalidValueError(field.name, value, problem)


def model_names(value: object) -> object:
    """Return names as a tuple; one name stands for itself."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def are_models(_: object, field: attrs.Attribute[Any], value: object) -> None:
    """Require names of models, or patterns."""
    if not isinstance(value, tuple):
        raise InvalidValueError(field.name, value, "is no list of models")
    if len(value) > _MAX_MODELS:
        problem = f"is longer than {_MAX_MODELS} models"
        raise InvalidValueError(field.name, len(value), problem)
    for name in value:
        non_empty(_, field, name)
        if len(name) > _MAX_NAME_CHARS:
            problem = f"is longer than {_MAX_NAME_CHARS} characters"
            raise InvalidValueError(field.name, name, problem)


@attrs.frozen(kw_only=True)
class VirtualKey:
    """What a key is called, and what it may do.

    Attributes:
        id: ``key_`` and 16 hexadecimal digits, drawn when it is made.
        name: what people call it.
        team: whose limits and budgets it shares; None: nobody's.
        created_at_s: Unix time.
        expires_at_s: Unix time from which it opens nothing; None: never.
        models: the public names that it may ask for, ``*`` standing for any text;
            none: all.
        priority: that of its requests; one may say less, none more.
        weight: its share of a queue beside its team's other keys, or beside teams.
        rate_limits: how fast it may ask, on all nodes together; None: without limit.
        budgets: what it may spend, on all nodes together.

    >>> VirtualKey.make_id(b"12345678")
    'key_3132333435363738'
    """

    id: str = attrs.field(validator=_is_id)
    name: str = attrs.field(validator=short_name)
    team: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(short_name)
    )
    created_at_s: int = attrs.field(default=0, validator=at_least(0))
    expires_at_s: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(
            attrs.validators.and_(at_least(0), at_most(_MAX_TIME_S))
        ),
    )
    models: tuple[str, ...] = attrs.field(
        default=(), converter=model_names, validator=are_models
    )
    priority: int = attrs.field(
        default=0, validator=[at_least(-MAX_PRIORITY), at_most(MAX_PRIORITY)]
    )
    weight: float = attrs.field(default=1.0, validator=is_weight)
    rate_limits: RateLimits | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.instance_of(RateLimits)),
    )
    budgets: tuple[Budget, ...] = attrs.field(
        default=(), converter=as_budgets, validator=are_budgets
    )

    @staticmethod
    def make_id(random: bytes) -> str:
        """Return an id made of 8 random bytes."""
        return f"key_{random.hex()}"

    def may_use(self, model: str) -> bool:
        """Whether it may ask for a model by this name.

        >>> key = VirtualKey(id="key_0123456789abcdef", name="ci", models=("gpt-*",))
        >>> key.may_use("gpt-6"), key.may_use("claude")
        (True, False)
        """
        return not self.models or any(_falls_under(model, each) for each in self.models)

    def visible(self, served: Iterable[str]) -> tuple[str, ...]:
        """Return which of the served names and patterns it may use.

        Of a pattern that it may use in part, the part.

        >>> key = VirtualKey(id="key_0123456789abcdef", name="ci", models=("gpt-6",))
        >>> key.visible(["gpt-*", "claude"])
        ('gpt-6',)
        """
        if not self.models:
            return tuple(served)
        found: dict[str, None] = {}
        for name in served:
            if self.may_use(name):
                found[name] = None
            else:
                found |= {m: None for m in self.models if _falls_under(m, name)}
        return tuple(found)

    def names_in_vain(self, served: Collection[str]) -> tuple[str, ...]:
        """Return which of its models no served name or pattern is.

        >>> names = ("gpt-6", "gtp-5")
        >>> key = VirtualKey(id="key_0123456789abcdef", name="ci", models=names)
        >>> key.names_in_vain(["gpt-*", "claude"])
        ('gtp-5',)
        """
        each = ((model, attrs.evolve(self, models=(model,))) for model in self.models)
        return tuple(model for model, key in each if not key.visible(served))


@attrs.frozen(kw_only=True)
class KeySecret:
    """A secret of a key, as far as it is kept.

    Attributes:
        digest: of the secret, 32 bytes.
        key: the id of the key that it belongs to.
        shown: its beginning, by which people tell it from others.
        created_at_s: Unix time.
    """

    digest: bytes = attrs.field(repr=False, validator=_is_digest)
    key: str = attrs.field(validator=_is_id)
    shown: str = attrs.field(validator=non_empty)
    created_at_s: int = attrs.field(validator=at_least(0))


def _falls_under(name: str, pattern: str) -> bool:
    return name == pattern or ("*" in pattern and fnmatch.fnmatchcase(name, pattern))
