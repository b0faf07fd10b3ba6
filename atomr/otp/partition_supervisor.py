"""PartitionSupervisor: one child several times, each for its share of the keys.

::

    await node.start(
        child(
            lambda: PartitionSupervisor(child(Collector), partitions=4),
            name="collectors",
        )
    )
    collectors = PartitionRef("collectors")
    await call(collectors.via("ann"), Collect(3))

A process handles one message at a time, so one that everybody talks to is a
bottleneck as soon as its handlers wait.  Where its state falls apart by a key,
several of the kind share the work: each key has its partition, and keeps it.

The partitions are children like others, with ids ``Collector[0]`` and up.
:meth:`PartitionRef.via` is an address wherever one is taken; it is looked up at
each use, so it finds a restarted partition.  A lookup asks nobody: it reads the
supervisor's table.

When to use: the state falls apart by a key, and handlers wait.  When not: all of
a node runs in one thread, so partitions of handlers that only compute are no
faster than one process.

Source: Elixir ``PartitionSupervisor``.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Final

import attrs

from atomr.core.checks import check_count, check_function
from atomr.core.partitions import PartitionKey, partition_of
from atomr.core.start_arguments import StartWith
from atomr.core.supervision import Strategy
from atomr.errors import ChildError, NoProcessError, StartError, StartIgnoredError
from atomr.otp.children import DeleteChild, StartChild, check_spec
from atomr.otp.supervisor import Supervisor
from atomr.process.calls import Request, call
from atomr.process.context import find_process
from atomr.refs import Address, Pid, Via

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.core.child_spec import ChildSpec
    from atomr.otp.supervising import Child

DEFAULT_PARTITIONS: Final = 8
"""Partitions where none are asked for.

Elixir takes the number of cores.  Here one thread runs them all, so they hide
waiting, not computing, and the number of cores says nothing about that; a fixed
number also routes a key alike on every machine.
"""


@attrs.frozen
class Resize(Request[int]):
    """Start or stop partitions until there are so many."""

    partitions: int


class PartitionSupervisor(Supervisor):
    """Supervises several partitions of one child; talk to it by a PartitionRef.

    Args:
        spec: of each partition; to its id comes the partition's number.
        partitions: how many to start with, at least 1.
        with_arguments: from a partition's number, from 0, to the arguments that
            its ``start`` is called with, on restarts too; None: it is called
            without.
        strategy: which partitions a restart takes along.
        max_restarts: restarts allowed within ``max_seconds``, over all
            partitions.
        max_seconds: length of that window in seconds.
        backoff_s: the ``backoff_s`` of the partitions, if ``spec`` has none.
        max_backoff_s: longest wait in seconds for that.

    Raises:
        ValueError: ``partitions`` is less than 1; ``spec`` has a name, which
            only one process can hold, or is significant.
        TypeError: ``spec`` is no ``ChildSpec``, an option is of another type, or
            ``with_arguments`` returned something else than a tuple.
    """

    def __init__(  # noqa: PLR0913 - all but one by keyword, all with OTP's defaults
        self,
        spec: ChildSpec,
        *,
        partitions: int = DEFAULT_PARTITIONS,
        with_arguments: Callable[[int], tuple[object, ...]] | None = None,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        backoff_s: float = 0.0,
        max_backoff_s: float = 30.0,
    ) -> None:
        check_spec("PartitionSupervisor()", spec)
        check_count("partitions", partitions, least=1)
        if with_arguments is not None:
            check_function("with_arguments", with_arguments)
        if spec.name is not None:
            raise ValueError(
                f"child {spec.id!r}: only one partition could have the name"
                f" {spec.name!r}; name the PartitionSupervisor, and use a PartitionRef"
            )
        self._specs = [
            _partition_spec(spec, number, with_arguments)
            for number in range(partitions)
        ]
        super().__init__(
            self._specs,
            strategy=strategy,
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            backoff_s=backoff_s,
            max_backoff_s=max_backoff_s,
        )
        # By number; one that has ended for good keeps its place.
        self._partitions: list[Child] = self.rows()

    @property
    def partitions(self) -> int:
        """How many there are now."""
        return len(self._partitions)

    @property
    def max_partitions(self) -> int:
        """How many there were at the start."""
        return len(self._specs)

    def pid_of(self, number: int) -> Pid | None:
        """Return the pid of a partition; None while it does not run."""
        return self._partitions[number].info().pid

    async def handle_request(self, request: object) -> object:
        """Serve one request about the partitions."""
        match request:
            case Resize(partitions):
                return await self._resize(partitions)
            case StartChild(spec):
                raise ChildError("start_child", spec.id, _FIXED)
            case DeleteChild(key):
                raise ChildError("delete_child", key, _FIXED)
            case _:
                return await super().handle_request(request)

    async def _resize(self, partitions: int) -> int:
        before = len(self._partitions)
        surplus = self._partitions[partitions:]
        # Nothing is routed there from now on.
        del self._partitions[partitions:]
        while surplus:
            try:
                await self._stop(surplus[-1])
            except Exception:
                # A Startable's own code; those that still run keep their keys.
                self._partitions += surplus
                raise
            self._children.pop(surplus.pop().spec.id, None)
        for spec in self._specs[before:partitions]:
            await self._add_partition(spec)
        return before

    async def _add_partition(self, spec: ChildSpec) -> None:
        child = self._children[spec.id] = self._row(spec)
        try:
            await self._restart(child)
        except StartIgnoredError:
            # As at the start: it has its place, and no process.
            pass
        except StartError:
            del self._children[spec.id]
            raise
        self._partitions.append(child)


_FIXED = "the children of a PartitionSupervisor are its partitions; resize() them"


def _partition_spec(
    spec: ChildSpec,
    number: int,
    with_arguments: Callable[[int], tuple[object, ...]] | None,
) -> ChildSpec:
    start = spec.start
    if with_arguments is not None:
        arguments = with_arguments(number)
        if not isinstance(arguments, tuple):
            raise TypeError(
                f"with_arguments({number}): expected a tuple, not {arguments!r}"
            )
        start = StartWith(start, arguments, "with_arguments")
    return attrs.evolve(spec, id=f"{spec.id}[{number}]", start=start)


class PartitionRef:
    """A PartitionSupervisor's address, and how one reaches its partitions.

    Args:
        supervisor: its name, pid or ``via``.
    """

    __slots__ = ("supervisor",)

    def __init__(self, supervisor: Address) -> None:
        self.supervisor = supervisor

    def __repr__(self) -> str:
        return f"PartitionRef({self.supervisor!r})"

    def via(self, key: PartitionKey) -> Via:
        """Return an address: the partition of ``key``, looked up at each use.

        While that partition does not run, the address finds nobody: ``call``
        raises ``NoProcessError``, ``cast`` and ``send`` drop the message.

        An integer is routed by its remainder, a pid by that of its number, and
        anything else by a hash of its value that is the same in each run.  The
        way may change with a version, so what is stored must not rely on it.

        Args:
            key: what the message is about; ``self_pid()`` spreads callers.
        """
        return _PartitionVia(self, key)

    def whereis(self, key: PartitionKey) -> Pid | None:
        """Return the partition of ``key``; None while it, or all, do not run.

        Raises:
            TypeError: the key cannot be routed; or that process is no
                PartitionSupervisor.
        """
        supervisor = self._find()
        if supervisor is None or not supervisor.partitions:
            return None
        return supervisor.pid_of(partition_of(key, supervisor.partitions))

    def partitions(self) -> int:
        """Return how many partitions there are, running or not.

        Raises:
            NoProcessError: the supervisor does not run.
        """
        return self._supervisor("partitions").partitions

    async def resize(self, partitions: int) -> int:
        """Start or stop partitions, the last first; return how many there were.

        Keys are routed anew: most go to another partition than before, whose
        state knows nothing of them.

        Args:
            partitions: from 0 to the number that the supervisor started with.

        Raises:
            ValueError: ``partitions`` is outside of that.
            TypeError: it is no integer.
            StartError: one did not start; those before it did.
            CallError: the supervisor is not there, or ended meanwhile.

        Cancellation: the supervisor goes on resizing.
        """
        most = self._supervisor("resize").max_partitions
        wanted = index(partitions)
        if not 0 <= wanted <= most:
            raise ValueError(f"resize({partitions}): expected 0 to {most}")
        return await call(self.supervisor, Resize(wanted), timeout_s=None)

    def _find(self) -> PartitionSupervisor | None:
        process = find_process(self.supervisor)
        if process is None:
            return None
        if not isinstance(process.behaviour, PartitionSupervisor):
            kind = type(process.behaviour).__name__
            raise TypeError(f"{self!r}: expected a PartitionSupervisor, not a {kind}")
        return process.behaviour

    def _supervisor(self, operation: str) -> PartitionSupervisor:
        supervisor = self._find()
        if supervisor is None:
            raise NoProcessError(self.supervisor, operation)
        return supervisor


@attrs.frozen
class _PartitionVia(Via):
    partitions: PartitionRef
    key: PartitionKey

    def __repr__(self) -> str:
        return f"{self.partitions.supervisor}[{self.key!r}]"

    def whereis(self) -> Pid | None:
        return self.partitions.whereis(self.key)

    def register(self, pid: Pid) -> None:
        raise TypeError(f"{self!r}: a partition's address is not for naming {pid!r}")

    def unregister(self, pid: Pid) -> None:
        raise TypeError(f"{self!r}: {pid!r} cannot have held it")
