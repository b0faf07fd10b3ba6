"""The runtime of a ``[[deployment]]`` that names none: by its model's name or file."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from atomr_infer.config.reader import TableReader
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import AUTO
from atomr_infer.runtimes.by_model import (
    NONE_ON_RAY,
    Chosen,
    choose_runtime,
    none_for,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.config.mistakes import Mistakes

_OTHER_WORDS = frozenset({"provider", "engine"})

Choose: TypeAlias = Callable[[str], Chosen | None]


def with_runtimes(
    top: TableReader, mistakes: Mistakes, choose: Choose = choose_runtime
) -> tuple[TableReader, tuple[str, ...]]:
    """Return a document in which each deployment has a runtime, and why.

    Args:
        top: the whole document.
        mistakes: where it is kept that no runtime takes a model by its name, or that
            it is for Ray's nodes; such a deployment has ``auto``.
        choose: returns the runtime for a model.

    Returns:
        The document, and a sentence for each runtime that was chosen.
    """
    tables = top.content.get("deployment")
    if not isinstance(tables, list):
        return top, ()
    told: list[str] = []
    filled: list[object] = []
    for index, table in enumerate(tables):
        filled.append({"runtime": AUTO, **table} if isinstance(table, dict) else table)
        with mistakes.kept():
            filled[-1] = _filled(top, index, table, choose=choose, told=told)
    return attrs.evolve(top, content={**top.content, "deployment": filled}), tuple(told)


def _filled(
    top: TableReader,
    index: int,
    table: object,
    *,
    choose: Choose,
    told: list[str],
) -> object:
    if not isinstance(table, dict) or table.get("runtime", AUTO) != AUTO:
        return table
    if "runtime" not in table and _is_misspelt(table):
        return table  # the key that nobody knows is told
    model = _model_of(table)
    if model is None:
        return table  # what is wrong with it is said by who reads it
    where = ("deployment", index)
    label = f"deployment {table.get('name')!r}"
    reader = TableReader(top.origin, where, label, table)
    if "ray" in table:
        raise reader.fail("runtime", NONE_ON_RAY)
    try:
        chosen = choose(model)
    except ConfigError as error:
        raise reader.fail("runtime", f"runtime is missing; {error}") from error
    if chosen is None:
        raise reader.fail("runtime", none_for(model))
    told.append(f"{label}: runtime {chosen.runtime}, because {chosen.why}")
    told += [f"{label}: {sentence}" for sentence in chosen.better]
    return {**table, "runtime": chosen.runtime}


def _is_misspelt(table: Mapping[str, Any]) -> bool:
    near = difflib.get_close_matches("runtime", table)
    return bool(near) or not _OTHER_WORDS.isdisjoint(table)


def _model_of(table: Mapping[str, Any]) -> str | None:
    """Return the name by which a runtime is chosen; None: there is none."""
    serves = table.get("serves")
    first = serves[0] if isinstance(serves, list) and serves else None
    for name in (table.get("model"), first, table.get("name")):
        if name is not None:
            return name if isinstance(name, str) else None
    return None
