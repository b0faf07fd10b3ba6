"""The table ``[deployment.price]`` to a :class:`~atomr_infer.model.prices.Price`.

::

    [deployment.price]             # USD per million tokens
    input = 0.15
    output = 0.60
    cache_read = 0.075
    tiers = [{ above_prompt_tokens = 200_000, input = 0.30, output = 0.90 }]

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.config.reader import TableReader, type_name
from atomr_infer.model.prices import Price, Rates, Tier

if TYPE_CHECKING:
    from collections.abc import Mapping

_RATES = tuple(field.name for field in attrs.fields(Rates))
_THRESHOLD = "above_prompt_tokens"


def read_price(table: TableReader) -> Price:
    """Read a price.

    Raises:
        ConfigError: a key is unknown, a number is no price, or ``input`` or
            ``output`` is missing.
    """
    table.check_keys((*_RATES, "request", "tiers"))
    for key in ("input", "output"):
        if key not in table.content:
            raise table.fail(key, f"{key} is missing; write USD per million tokens")
    values: dict[str, object] = {"rates": table.make(Rates, _rates(table.content))}
    if "request" in table.content:
        values["request"] = table.content["request"]
    if "tiers" in table.content:
        values["tiers"] = _tiers(table)
    return table.make(Price, values)


def _rates(content: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in content.items() if key in _RATES}


def _tiers(table: TableReader) -> tuple[Tier, ...]:
    elements = table.content["tiers"]
    if not isinstance(elements, list):
        raise table.fail("tiers", f"tiers is {type_name(elements)}, not an array")
    return tuple(_tier(table, index, content) for index, content in enumerate(elements))


def _tier(table: TableReader, index: int, content: object) -> Tier:
    if not isinstance(content, dict):
        raise table.fail("tiers", f"tiers holds {type_name(content)}, not tables")
    where = (*table.where, "tiers", index)
    tier = TableReader(table.origin, where, f"{table.label}: tiers[{index}]", content)
    tier.check_keys((*_RATES, _THRESHOLD))
    if _THRESHOLD not in content:
        raise tier.fail(_THRESHOLD, f"{_THRESHOLD} is missing")
    rates = tier.make(Rates, _rates(content))
    return tier.make(Tier, {_THRESHOLD: content[_THRESHOLD], "rates": rates})
