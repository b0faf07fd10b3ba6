"""The order in which applications start.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.errors import DependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def start_order(depends_on: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the names with each after all that it depends on.

    Names that do not depend on each other keep the order they came in, so the
    same list always starts in the same order.

    Args:
        depends_on: for each name the names it needs.

    Raises:
        DependencyError: a name is missing, or the names form a cycle.

    >>> start_order({"web": ["db"], "db": [], "log": []})
    ('db', 'web', 'log')
    """
    order: list[str] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        if name in path:
            cycle = (*path[path.index(name) :], name)
            raise DependencyError("applications depend on each other", cycle)
        if name not in depends_on:
            raise DependencyError("no application of that name", (*path[-1:], name))
        path.append(name)
        for needed in depends_on[name]:
            visit(needed)
        path.pop()
        order.append(name)

    for name in depends_on:
        visit(name)
    return tuple(order)
