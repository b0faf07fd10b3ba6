"""Addresses: pids, names and unique references.

A :class:`Pid` holds its process directly, so sending needs no lookup.  When
the process ends the pid lets go of it: a kept pid keeps nothing alive, and
"dead" is one test.

Imports no trio.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from typing import Any, TypeAlias

Name: TypeAlias = str
"""A name registered on a node; free again when its process ends."""

_ref_numbers = itertools.count(1)


class Pid:
    """The address of one process; equal only to itself, valid on its node.

    Attributes:
        number: counts up per node, never used twice.
        label: what the process is, for people: an id, a name, a function.
    """

    __slots__ = ("__weakref__", "_process", "label", "number")

    # The process layer lies above this one; naming its type here would turn
    # the layers round.
    _process: Any

    def __init__(self, number: int, label: str) -> None:
        self.number = number
        self.label = label
        self._process = None

    def __repr__(self) -> str:
        return f"<Pid {self.number} {self.label}>"


class Ref:
    """A unique reference, as :func:`atomr.process.monitor` returns."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = next(_ref_numbers)

    def __repr__(self) -> str:
        return f"<Ref {self.number}>"


class Via(ABC):
    """A name that something else than the node looks up: a registry's key.

    Wherever a name is taken, a ``Via`` is: by ``call``, ``cast``, ``send``,
    ``monitor`` and ``ChildSpec.name``.
    """

    @abstractmethod
    def whereis(self) -> Pid | None:
        """Return who holds the name now."""

    @abstractmethod
    def register(self, pid: Pid) -> None:
        """Give ``pid`` the name until it ends.

        Raises:
            NameTakenError: another live process holds it.
        """

    @abstractmethod
    def unregister(self, pid: Pid) -> None:
        """Take the name from ``pid``, which failed to start."""


Address: TypeAlias = Pid | Name | Via
"""Whatever a message can be sent to."""
