"""Budgets of a cluster as a whole, from what each node tells of them.

A node takes units for itself before somebody asks for them, and the others only know
that they are taken: so each counts as spent what the others have set aside, and none of
the nodes' sums is that of all.  Here what is set aside is put back.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_Told: TypeAlias = "Mapping[str, Any]"


def whole_budgets(nodes: Mapping[str, Sequence[_Told]]) -> list[dict[str, Any]]:
    """Return each budget's present period as all nodes together see it.

    Args:
        nodes: of each node that answered, what it tells of its budgets.

    Returns:
        ``spent``, ``reserved`` by calls that run, and ``remaining``, which make up
        ``limit`` once all voters have been there, in the budget's ``unit``; ``nodes``
        says what each node has ``set_aside`` and ``reserved``.  What a node holds that
        does not tell of it counts as spent.
    """
    parts: dict[str, dict[str, _Told]] = {}
    for node, budgets in nodes.items():
        for budget in budgets:
            if "ledger" in budget:
                parts.setdefault(budget["ledger"], {})[node] = budget
    return [_whole(part) for part in parts.values()]


def budgets_of(nodes: Mapping[str, Any]) -> Iterator[tuple[str, list[_Told]]]:
    """Give the budgets of each node that answered how it stands."""
    for name, done in nodes.items():
        if "budgets" in done["answer"]:
            yield name, done["answer"]["budgets"]


def _whole(parts: Mapping[str, _Told]) -> dict[str, Any]:
    aside = sum(_aside(part) for part in parts.values())
    reserved = sum(part["reserved"] for part in parts.values())
    # News of what is taken are on their way for a moment: who knows of most is right.
    newest = max(parts.values(), key=_taken)
    taken = _taken(newest)
    made = newest["spent"] + newest["remaining"]
    same = ("owner", "name", "budget", "ledger", "unit", "limit")
    return {
        **{name: newest[name] for name in same},
        "spent": max(0, taken - aside - reserved),
        "reserved": reserved,
        "remaining": max(0, made - taken) + aside,
        "nodes": {
            node: {"set_aside": _aside(part), "reserved": part["reserved"]}
            for node, part in parts.items()
        },
    }


def _taken(part: _Told) -> int:
    """Units that nodes have taken, used or not, as far as one of them knows."""
    taken: int = part["spent"] + _aside(part)
    return taken


def _aside(part: _Told) -> int:
    """Units that a node has taken and nobody uses; 0: an older one does not say."""
    aside: int = part.get("set_aside", 0)
    return aside
