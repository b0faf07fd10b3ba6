"""A deployment as the table that a configuration would hold, and the way back.

It is how a deployment goes from node to node, and into the catalogue that they
share: what people write is kept stable, is checked on the way in, and says which
key a node of another version does not know.  Only what differs from the defaults
is in it, so equal deployments are equal tables, whoever wrote what by hand.

Secrets do not go along: where they are found does.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from atomr_infer.config.deployments import read_deployment
from atomr_infer.config.positions import scan
from atomr_infer.config.reader import Origin, TableReader
from atomr_infer.errors import ConfigError
from atomr_infer.model.prices import Price, Rate, Rates, Tier
from atomr_infer.model.secret import (
    EnvSecret,
    FileSecret,
    HeaderSecret,
    PluginSecret,
    PooledSecret,
    Secret,
)

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

Table: TypeAlias = dict[str, Any]
"""What TOML can hold."""


class LiteralSecretError(ConfigError):
    """A deployment holds a key itself, which must not leave its process."""


def deployment_table(deployment: Deployment) -> Table:
    """Return the table ``[[deployment]]`` that a deployment could come from.

    Raises:
        LiteralSecretError: it holds a key, not where one is found.

    >>> from atomr_infer.model.deployment import Deployment
    >>> deployment_table(Deployment(name="tiny", runtime="mock"))
    {'name': 'tiny', 'runtime': 'mock'}
    """
    try:
        table = _fields(deployment)
        if deployment.serves == (deployment.name,):
            table.pop("serves", None)
    except _LiteralError as error:
        raise LiteralSecretError(
            f"deployment {deployment.name!r}: a key in the program cannot be told to "
            "other nodes; name where each finds it: EnvSecret(...), FileSecret(...)"
        ) from error
    return table


def table_deployment(table: Mapping[str, object]) -> Deployment:
    """Return the deployment of a table that :func:`deployment_table` made.

    Raises:
        ConfigError: this version does not know it as a deployment.
    """
    name = table.get("name")
    label = f"deployment {name!r}"
    top = TableReader(Origin("the catalogue", scan("")), (), label, table)
    # Paths are as they are written; each node has its own folder.
    return read_deployment(top, Path())


class _LiteralError(Exception):
    """A secret itself."""


def _fields(value: attrs.AttrsInstance) -> Table:
    """Return an attrs value as a table of what differs from its defaults."""
    table: Table = {}
    for field in attrs.fields(type(value)):
        if not field.init:
            continue
        now = getattr(value, field.name)
        if not _is_default(field, now):
            table[field.name] = _plain(now)
    return table


def _is_default(field: attrs.Attribute[Any], value: object) -> bool:
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type] # a function to the type checker
        if default.takes_self:
            return False
        default = default.factory()
    return value is None or bool(default is not attrs.NOTHING and value == default)


def _plain(value: object) -> object:
    """Return a value of a field as TOML can hold it."""
    if isinstance(value, Enum):
        return value.value
    if attrs.has(type(value)):
        return _written(value)  # type: ignore[arg-type] # asked in the line above
    if isinstance(value, frozenset):
        return sorted(map(_plain, value), key=str)
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _written(value: attrs.AttrsInstance) -> Table:
    """Return an attrs value as people write it."""
    match value:
        case Price():
            return _price(value)
        case PooledSecret(source, weight):
            table = _secret(source)
            return table if weight == 1 else {**table, "weight": weight}
        case EnvSecret() | FileSecret() | HeaderSecret() | PluginSecret() | Secret():
            return _secret(value)
        case _:
            return _fields(value)


def _secret(source: object) -> Table:
    match source:
        case EnvSecret(variable):
            return {"env": variable}
        case FileSecret(path):
            return {"file": path}
        case HeaderSecret(header):
            return {"header": header}
        case PluginSecret(provider, options):
            return {"provider": provider, **{k: _plain(v) for k, v in options.items()}}
        case _:
            raise _LiteralError


def _price(price: Price) -> Table:
    table = _rates(price.rates)
    if price.request is not None:
        table["request"] = _usd(price.request)
    if price.tiers:
        table["tiers"] = [_tier(tier) for tier in price.tiers]
    return table


def _tier(tier: Tier) -> Table:
    return {"above_prompt_tokens": tier.above_prompt_tokens, **_rates(tier.rates)}


def _rates(rates: Rates) -> Table:
    return {
        field.name: _usd(rate)
        for field in attrs.fields(Rates)
        if (rate := getattr(rates, field.name)) is not None
    }


def _usd(rate: Rate) -> float:
    # Exact both ways: the loader takes a float as it is written.
    return float(rate.usd_per_million)
