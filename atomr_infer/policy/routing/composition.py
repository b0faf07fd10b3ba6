"""Whether deployments that ask others end at one that does not.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError, ModelNotFoundError
from atomr_infer.policy.routing.model_table import ModelTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from atomr_infer.model.deployment import Deployment

MAX_DEPTH = 4
"""Deployments that may ask each other in a row: pipelines of pipelines, and no more."""


def check_composition(
    deployments: Iterable[Deployment], asks: Mapping[str, tuple[str, ...]], first: str
) -> None:
    """Refuse a deployment that would ask itself by way of others.

    Args:
        deployments: all that are there.
        asks: the models that a deployment asks, by its name.
        first: the deployment to begin at.

    Raises:
        ConfigError: it asks itself, or the row is too long; names the row.
    """
    table = ModelTable(tuple(deployments))
    by_name = {each.name: each for each in table.deployments}

    def after(name: str) -> Iterator[str]:
        for model in asks.get(name, ()):
            yield from served_by(table, model)
        if name in by_name:
            yield from (fallback.to for fallback in by_name[name].fallbacks)

    def walk(name: str, row: tuple[str, ...]) -> None:
        if name in row:
            told = " -> ".join((*row[row.index(name) :], name))
            raise ConfigError(f"deployment {first!r}: it would ask itself: {told}")
        row = (*row, name)
        if sum(1 for each in row if asks.get(each)) > MAX_DEPTH:
            told = " -> ".join(row)
            most = f"{MAX_DEPTH} in a row at most"
            raise ConfigError(f"deployment {first!r}: it asks others, {most}: {told}")
        for other in after(name):
            walk(other, row)

    walk(first, ())


def check_served(table: ModelTable, models: Iterable[str]) -> None:
    """Refuse models that nobody serves.

    Raises:
        ConfigError: names the first one, and the nearest that is served.
    """
    for model in models:
        try:
            table.resolve(model)
        except ModelNotFoundError as error:
            raise ConfigError(f"options: {error}") from error


def served_by(table: ModelTable, model: str) -> tuple[str, ...]:
    """Return the deployments that may answer for a model; none: nobody does."""
    try:
        return tuple(route.deployment for route in table.resolve(model).group)
    except ModelNotFoundError:
        return ()
