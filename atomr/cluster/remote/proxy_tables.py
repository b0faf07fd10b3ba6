"""The tables of a proxy: who is linked with its process, and who waits for it.

The rest of the library writes into the tables of a process itself.  Those of a proxy
are dicts and sets that tell the other node what is written.

They hold their proxy weakly: nobody writes into them but through it, and so it is gone
with its last user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import ref

from atomr.process.calls import From
from atomr.process.context import check_local
from atomr.process.process import Process
from atomr.process.ties import Tie

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.cluster.remote.proxy import RemoteProcess

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")

_ABSENT: Final = object()


class LazyTie(Tie[T]):
    """A table of a proxy that is made when it is first looked at.

    Most proxies have none: a process that is answered once is sent one message.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[RemoteProcess], T]) -> None:
        self._make = make

    def __get__(self, process: Any, owner: type[Process]) -> Any:  # noqa: ANN401 - as of Tie
        """Return the table; None where the proxy has ended without one."""
        found = super().__get__(process, owner)
        if found is None and process.reason is None:
            found = self._make(process)
            self.__set__(process, found)
        return found


class _Owned:
    """What belongs to a proxy."""

    __slots__ = ()

    _proxy: ref[RemoteProcess]

    def _owner(self) -> RemoteProcess:
        proxy = self._proxy()
        assert proxy is not None, "whoever writes into it holds the proxy"
        return proxy


class Waiting(dict[K, V], _Owned):
    """A table of those who wait for the end of a proxy."""

    __slots__ = ("_proxy",)

    def __init__(self, proxy: RemoteProcess) -> None:
        super().__init__()
        self._proxy = ref(proxy)

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self._owner().waited_for()

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self._owner().left()

    def pop(self, key: K, *default: Any) -> Any:  # noqa: ANN401 - as of dict
        """Strike out a row."""
        found = super().pop(key, *default)
        self._owner().left()
        return found


class Names(set[str], _Owned):
    """The names that a proxy has on this node."""

    __slots__ = ("_proxy",)

    def __init__(self, proxy: RemoteProcess) -> None:
        super().__init__()
        self._proxy = ref(proxy)

    def add(self, name: str) -> None:
        """Write down a name."""
        super().add(name)
        self._owner().waited_for()

    def discard(self, name: object) -> None:
        """Strike out a name."""
        super().discard(name)
        self._owner().left()


class Links(dict[Process, None], _Owned):
    """The processes here that are linked with the one of a proxy."""

    __slots__ = ("_proxy",)

    def __init__(self, proxy: RemoteProcess) -> None:
        super().__init__()
        self._proxy = ref(proxy)

    def __setitem__(self, process: Process, value: None) -> None:
        proxy = self._owner()
        if isinstance(proxy.target, str):
            if process.links is not None:
                process.links.pop(proxy, None)
            raise TypeError(
                f"link({proxy.pid!r}): a name may have another holder later;"
                " link with a pid"
            )
        if process.node is not proxy.node:
            if process.links is not None:
                process.links.pop(proxy, None)
            check_local(process, proxy.node, f"link({proxy.pid!r})")
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
        proxy = self._owner()
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


class Calls(set[From], _Owned):
    """The calls that wait for a proxy's process, with their numbers."""

    __slots__ = ("_numbers", "_proxy")

    def __init__(self, proxy: RemoteProcess) -> None:
        super().__init__()
        self._proxy = ref(proxy)
        self._numbers: dict[From, int] = {}

    def __setitem__(self, call: From, number: int) -> None:
        super().add(call)
        self._numbers[call] = number

    def numbers(self) -> tuple[int, ...]:
        """Return the numbers of all."""
        return tuple(self._numbers.values())

    def discard(self, call: object) -> None:
        """Forget a call that is settled; tell the peer if it did not settle it."""
        super().discard(call)
        number = self._numbers.pop(call, None) if isinstance(call, From) else None
        session = self._owner().session
        if number is not None and session is not None:
            session.give_up(number)
