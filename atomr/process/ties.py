"""What most processes do not have: links, monitors, names, timers, waiters.

They are kept in an object of their own, made when the first is set: a process
that has none of them pays for one attribute, not for a dozen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, overload

if TYPE_CHECKING:
    from atomr.process.process import Process

T = TypeVar("T")


class Ties:
    """Where :class:`Tie` keeps what it is set to."""

    __slots__ = (
        "deferred",
        "exit_spots",
        "ignored",
        "init_timed_out",
        "links",
        "monitoring",
        "names",
        "on_end",
        "room_spots",
        "timers",
        "watchers",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, None)


class Tie(Generic[T]):
    """An attribute of a process that is None until it is set."""

    __slots__ = ("_name",)

    def __set_name__(self, owner: type[Process], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, process: None, owner: type[Process]) -> Tie[T]: ...
    @overload
    def __get__(self, process: Process, owner: type[Process]) -> T | None: ...
    def __get__(
        self, process: Process | None, owner: type[Process]
    ) -> Tie[T] | T | None:
        if process is None:
            return self
        found: T | None = getattr(process.ties, self._name, None)
        return found

    def __set__(self, process: Process, value: T | None) -> None:
        if process.ties is None:
            if value is None:
                return
            process.ties = Ties()
        setattr(process.ties, self._name, value)
