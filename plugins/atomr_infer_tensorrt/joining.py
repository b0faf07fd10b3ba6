"""Which requests share a run: those whose tensors differ in their rows only.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer_tensorrt.shapes import Profile, Shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Shapes = dict[str, Shape]
"""The shapes of a request's tensors, by their names."""


def can_join(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> bool:
    """Whether a plan's first dimension may be rows of several requests."""
    return all(shape and shape[0] == -1 for shape in (*inputs, *outputs))


def rows_of(shapes: Mapping[str, Shape]) -> int | None:
    """Return a request's rows; None: its tensors differ in them.

    >>> rows_of({"a": (2, 3), "b": (2,)}), rows_of({"a": (2, 3), "b": (4,)})
    (2, None)
    """
    found = {shape[0] if shape else None for shape in shapes.values()}
    return found.pop() if len(found) == 1 else None


def choose(waiting: Sequence[Shapes], profiles: Sequence[Profile]) -> list[int]:
    """Return which of those that wait share the next run: the first, and those like it.

    The run takes the shapes of all of them together.
    """
    first = waiting[0]
    total = rows_of(first)
    chosen = [0]
    if total is None:
        return chosen
    for number, other in enumerate(waiting[1:], start=1):
        rows = rows_of(other)
        if rows is None or not _alike(first, other):
            continue
        if any(_takes(profile, first, total + rows) for profile in profiles):
            chosen.append(number)
            total += rows
    return chosen


def _alike(one: Shapes, other: Shapes) -> bool:
    return all(shape[1:] == other[name][1:] for name, shape in one.items())


def _takes(profile: Profile, shapes: Shapes, rows: int) -> bool:
    return all(
        profile[name].takes((rows, *shape[1:])) for name, shape in shapes.items()
    )
