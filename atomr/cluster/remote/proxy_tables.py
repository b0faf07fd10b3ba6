"""The tables of a proxy: who is linked with its process, and who waits for it.

The rest of the library writes into the tables of a process itself.  Those of a proxy
are dicts and sets that tell the other node what is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from atomr.process.calls import From
from atomr.process.process import Process

if TYPE_CHECKING:
    from atomr.cluster.remote.proxy import RemoteProcess

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Final = object()


class Waiting(dict[K, V]):
    """A table of those who wait for the end of a proxy."""

    __slots__ = ("_proxy",)

    def __init__(self, proxy: RemoteProcess) -> None:
        super().__init__()
        self._proxy = proxy

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self._proxy.waited_for()

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self._proxy.left()

    def pop(self, key: K, *default: Any) -> Any:  # noqa: ANN401 - as of dict
        """Strike out a row."""
        found = super().pop(key, *default)
        self._proxy.left()
        return found


class Names(set[str]):
    """The names that a proxy has on this node."""

    __slots__ = ("_proxy",)

    def __init__(self, proxy: RemoteProcess) -> None:
        super().__init__()
        self._proxy = proxy

    def add(self, name: str) -> None:
        """Write down a name."""
        super().add(name)
        self._proxy.waited_for()

    def discard(self, name: object) -> None:
        """Strike out a name."""
        super().discard(name)
        self._proxy.left()


class Links(dict[Process, None]):
    """The processes here that are linked with the one of a proxy."""

    __slots__ = ("_proxy",)

    def __init__(self, proxy: RemoteProcess) -> None:
        super().__init__()
        self._proxy = proxy

    def __setitem__(self, process: Process, value: None) -> None:
        proxy = self._proxy
        if isinstance(proxy.target, str):
            if process.links is not None:
                process.links.pop(proxy, None)
            raise TypeError(
                f"link({proxy.pid!r}): a name may have another holder later;"
                " link with a pid"
            )
        if process in self:
            return
        super().__setitem__(process, value)
        if proxy.session is not None and proxy.session.up:
            proxy.session.link_to(process.pid.number, proxy.target)
        else:
            proxy.waited_for()

    def pop(self, process: Process, *default: Any) -> Any:  # noqa: ANN401 - as of dict
        """Undo a link, and tell the other node."""
        was = process in self
        found = super().pop(process, *default)
        proxy = self._proxy
        # One that has ended says so itself, in its exit signal.
        alive = process.reason is None
        if was and alive and proxy.session is not None:
            assert isinstance(proxy.target, int), "names have no links"
            proxy.session.unlink(process.pid.number, proxy.target)
        return found

    def add_quietly(self, process: Process) -> None:
        """Write down a link that the other node has told of."""
        super().__setitem__(process, None)

    def drop_quietly(self, process: Process) -> bool:
        """Strike out a link that the other node has undone; return whether it was."""
        return super().pop(process, _ABSENT) is None


class Calls(set[From]):
    """The calls that wait for a proxy's process, with their numbers."""

    __slots__ = ("_numbers", "_proxy")

    def __init__(self, proxy: RemoteProcess) -> None:
        super().__init__()
        self._proxy = proxy
        self._numbers: dict[From, int] = {}

    def __setitem__(self, ref: From, number: int) -> None:
        super().add(ref)
        self._numbers[ref] = number

    def numbers(self) -> tuple[int, ...]:
        """Return the numbers of all."""
        return tuple(self._numbers.values())

    def discard(self, ref: object) -> None:
        """Forget a call that is settled; tell the peer if it did not settle it."""
        super().discard(ref)
        number = self._numbers.pop(ref, None) if isinstance(ref, From) else None
        session = self._proxy.session
        if number is not None and session is not None:
            session.give_up(number)
