"""Who is in which group, and what watchers of groups are told.

A process is in a group as often as it joined.  The roll follows the owned map: a row
is refreshed from it, and what comes of that is told.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from atomr.crdt import Origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Times: TypeAlias = tuple[str, int]
"""What the process is, for people, and how often it joined."""


@attrs.frozen
class Moved:
    """A process is in a group more often, or less often, than before.

    Attributes:
        owner: its node.
        number: of the process there.
        label: what it is.
        by: how much more often; below zero: less.
    """

    owner: Origin
    number: int
    label: str
    by: int


class Roll:
    """The members of all groups, as far as their nodes are in sight."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[str, dict[int, dict[Origin, Times]]] = {}

    def groups(self) -> tuple[str, ...]:
        """Return the groups that have members."""
        return tuple(self._groups)

    def rows(self) -> tuple[tuple[str, int], ...]:
        """Return all groups with the numbers of their members."""
        return tuple(
            (group, number) for group, rows in self._groups.items() for number in rows
        )

    def members(self, group: str) -> Iterator[tuple[Origin, int, Times]]:
        """Yield who is in a group: node, number, label and how often."""
        for number, row in self._groups.get(group, {}).items():
            for owner, times in row.items():
                yield owner, number, times

    def refresh(
        self, group: str, number: int, values: Mapping[Origin, Any]
    ) -> list[Moved]:
        """Take what the map says of the processes of one number; return what is new.

        Args:
            group: their group.
            number: of the processes, on their nodes.
            values: what each node has put.
        """
        old: dict[Origin, Times] = self._groups.get(group, {}).get(number, {})
        new = {
            owner: times
            for owner, value in values.items()
            if (times := decoded(value)) is not None
        }
        self._set(group, number, new)
        return [
            Moved(owner, number, new.get(owner, old.get(owner, _NEVER))[0], by)
            for owner in {**old, **new}
            if (by := new.get(owner, _NEVER)[1] - old.get(owner, _NEVER)[1])
        ]

    def _set(self, group: str, number: int, row: dict[Origin, Times]) -> None:
        if row:
            self._groups.setdefault(group, {})[number] = row
            return
        rows = self._groups.get(group)
        if rows is not None:
            rows.pop(number, None)
            if not rows:
                del self._groups[group]


MAX_TIMES = 1_000
"""A process is in a group no more often; a bad peer may say any number."""

_FIELDS = 2
_NEVER: Times = ("", 0)


def decoded(value: object) -> Times | None:
    """Return what a node has put; None: it is nothing of ours.

    >>> decoded(["a room", 2]), decoded("a room"), decoded(["a room", 0])
    (('a room', 2), None, None)
    """
    if not isinstance(value, list) or len(value) != _FIELDS:
        return None
    label, count = value
    if type(label) is str and type(count) is int and count > 0:
        return label, min(count, MAX_TIMES)
    return None
