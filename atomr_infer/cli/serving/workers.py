"""``serve --workers N``: several nodes that share a port, and are one cluster.

The parent binds, and holds the sockets; each worker is a ``serve`` of its own that
accepts from them (:mod:`atomr_infer.cli.serving.seat`).  It serves nothing itself: it
starts the workers, starts those again that end, and passes signals on.

::

    serve --workers 2 (parent)
    ├─ worker 1: node NAME-1
    └─ worker 2: node NAME-2
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.core.child_spec import ChildSpec
from atomr.errors import AtomrError, RootExitError, StartError
from atomr.otp import Supervisor
from atomr.process import PlainProcess, open_node
from atomr_infer.cli.certificates import make_folder
from atomr_infer.cli.output.banner import print_banner, print_line_end, print_notice
from atomr_infer.cli.output.logs import configure_logging
from atomr_infer.cli.serving.hangup import signals_here
from atomr_infer.cli.serving.other_state import other_state
from atomr_infer.cli.serving.seat import CLUSTER, COOKIE, SEEDS, Seat
from atomr_infer.cli.serving.worker_folder import worker_folder
from atomr_infer.errors import ConfigError
from atomr_infer.gateway.listening.listener import bind_sockets
from atomr_infer.model.capabilities import Feature

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from atomr_infer.cli.plan import ServePlan

log = logging.getLogger(__name__)

_CERTIFICATE_DAYS = 365
_RESTARTS = 5
_WITHIN_S = 60.0
_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 5.0
_END_S = 5.0
_LINE_BYTES = 65536


@attrs.define(eq=False)
class _Worker:
    """One worker.

    Attributes:
        seat: its place, but for the pipes.
        process: that runs now; None: none does.
        address: of its node; None: it has none yet.
        ready: whether it serves.
        served_once: whether it ever did.
    """

    seat: Seat
    process: trio.Process | None = None
    address: str | None = None
    ready: bool = False
    served_once: bool = False


class WorkerEndedError(AtomrError):
    """A worker's process has ended, and nobody had asked it to."""


class _WorkerProcess(PlainProcess):
    """Has one worker run; how that ended is a line of the log, and no traceback."""

    reports_crashes = False


class Crew:
    """The workers of one ``serve``, and what they share."""

    def __init__(
        self, plan: ServePlan, command: Sequence[str], *, count: int, folder: Path
    ) -> None:
        self._plan = plan
        self._command = command
        self._folder = folder
        self._sockets: tuple[socket.socket, ...] = ()
        self._alive = -1
        self._stopping = False
        self._engines: dict[str, list[int]] = {}
        self._features: dict[str, frozenset[Feature]] = {}
        self._changed = trio.Event()
        self._failed: str | None = None
        name = plan.node.own_name
        self._workers = [
            _Worker(
                Seat(
                    number=number,
                    count=count,
                    name=name,
                    folder=str(folder),
                    sockets=(),
                    told=-1,
                    alive=-1,
                )
            )
            for number in range(1, count + 1)
        ]

    async def run(self) -> None:
        """Serve until a signal ends it.

        Raises:
            ConfigError: the address cannot be bound, a worker cannot start, or they
                end again and again.

        Cancellation: ends the workers.
        """
        plan, names = self._plan, [worker.seat.node for worker in self._workers]
        _furnish(self._folder, names)
        here = signals_here()
        with ExitStack() as stack:
            gateway = plan.gateway
            self._sockets = await bind_sockets(gateway.host, gateway.port)
            for bound in self._sockets:
                stack.enter_context(bound)
            self._alive = stack.enter_context(_pipe_that_ends_with_us())
            signals = stack.enter_context(
                trio.open_signal_receiver(*here.stop, *here.renew)
            )
            try:
                await self._supervise(signals, stop=frozenset(here.stop))
            except (RootExitError, StartError) as error:
                told = "workers ended again and again; their own lines say why"
                raise ConfigError(told) from error

    async def _supervise(
        self, signals: AsyncIterator[int], *, stop: frozenset[int]
    ) -> None:
        children = [
            ChildSpec(
                id=worker.seat.node,
                start=partial(_WorkerProcess, self._work, worker),
                backoff_s=_BACKOFF_S,
                max_backoff_s=_MAX_BACKOFF_S,
                shutdown=2 * _END_S,
            )
            for worker in self._workers
        ]
        many = _RESTARTS * len(children)
        root = partial(Supervisor, children, max_restarts=many, max_seconds=_WITHIN_S)
        async with open_node() as node, trio.open_nursery() as nursery:
            await node.start(ChildSpec(id="workers", start=root))
            nursery.start_soon(self._announce)
            nursery.start_soon(self._obey, signals, stop)
            await self._until(lambda: self._stopping and not self._running)
            nursery.cancel_scope.cancel()
        if self._failed is not None:
            raise ConfigError(self._failed)
        print_notice("stopped")

    # --- signals -------------------------------------------------------------------

    async def _obey(self, signals: AsyncIterator[int], stop: frozenset[int]) -> None:
        """Pass signals on; the first that ends all closes our sockets."""
        async for number in signals:
            if number in stop and not self._stopping:
                self._stop_accepting(number)
            self._pass_on(number)
            self._tell()

    @property
    def _running(self) -> list[trio.Process]:
        return [worker.process for worker in self._workers if worker.process]

    def _stop_accepting(self, number: int) -> None:
        """Let go of the sockets: from now on they are the workers' alone."""
        self._stopping = True
        if number == signal.SIGINT and sys.stderr is not None and sys.stderr.isatty():
            print_line_end()  # the terminal has shown ^C
        for bound in self._sockets:
            bound.close()

    def _pass_on(self, number: int) -> None:
        for process in self._running:
            process.send_signal(number)

    def _is_ending(self) -> bool:
        """Whether a signal, or a failure, ends them all."""
        return self._stopping

    # --- one worker ----------------------------------------------------------------

    async def _work(self, worker: _Worker) -> None:
        """Run a worker until it ends; then it is started again.

        Raises:
            WorkerEndedError: it has ended, and it was not to.

        Cancellation: ends it.
        """
        if self._is_ending():
            await trio.sleep_forever()  # nothing is to be started any more
        reading, telling = os.pipe()
        seat = attrs.evolve(
            worker.seat,
            sockets=[bound.fileno() for bound in self._sockets],
            told=telling,
            alive=self._alive,
        )
        async with trio.lowlevel.FdStream(reading) as news:
            try:
                process = await trio.lowlevel.open_process(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    env=seat.environment(os.environ | self._plan.trial_environment),
                    pass_fds=(*seat.sockets, telling, self._alive),
                    # A terminal's Ctrl-C is for the parent, which passes it on.
                    process_group=0,
                )
            finally:
                os.close(telling)
            worker.process = process
            if self._is_ending():
                # The signal came while it was being started.
                process.terminate()
            try:
                await self._listen(worker, news)
                await process.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await _end(process)
                self._gone(worker, process)
        if self._is_ending():
            await trio.sleep_forever()  # nothing is to be started again
        raise WorkerEndedError(_how_ended(worker, process))

    async def _listen(self, worker: _Worker, news: trio.lowlevel.FdStream) -> None:
        """Take what a worker tells until its pipe ends, which it does with it."""
        text = b""
        while more := await news.receive_some(_LINE_BYTES):
            *lines, text = (text + more).split(b"\n")
            for line in lines:
                self._take(worker, json.loads(line))

    def _take(self, worker: _Worker, told: dict[str, object]) -> None:
        match told:
            case {"address": str(address)}:
                worker.address = address
                self._write_seeds()
            case {"engines": dict(engines), "features": dict(features)}:
                worker.ready = worker.served_once = True
                for name, pids in engines.items():
                    self._engines.setdefault(str(name), []).extend(pids)
                for name, of in features.items():
                    self._features[str(name)] = frozenset(map(Feature, of))
        self._tell()

    def _gone(self, worker: _Worker, process: trio.Process) -> None:
        worker.process, worker.ready, worker.address = None, False, None
        self._tell()
        if self._stopping:
            return
        how = _how_ended(worker, process)
        if worker.served_once:
            log.warning("%s; it is started again", how)
        else:
            self._give_up(f"{how} before it served; its own lines say why")

    def _give_up(self, why: str) -> None:
        """End all: what one cannot start with, the others cannot either."""
        self._failed = why
        self._stop_accepting(signal.SIGTERM)
        self._pass_on(signal.SIGTERM)
        self._tell()

    def _write_seeds(self) -> None:
        addresses = [worker.address for worker in self._workers if worker.address]
        draft = self._folder / f"{SEEDS}.new"
        draft.write_text("".join(f"{address}\n" for address in addresses))
        draft.replace(self._folder / SEEDS)

    # --- all of them ---------------------------------------------------------------

    async def _announce(self) -> None:
        """Print the banner once all serve."""
        await self._until(lambda: all(worker.ready for worker in self._workers))
        if self._stopping:
            return
        host, port = self._sockets[0].getsockname()[:2]
        scheme = "http" if self._plan.gateway.certificate is None else "https"
        shown = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{shown}:{port}"
        print_banner(
            self._plan,
            url,
            self._engines,
            features=self._features,
            workers=len(self._workers),
        )

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()


def run_workers(
    plan: ServePlan, *, count: int, arguments: Sequence[str], log_level: str
) -> None:
    """Serve with several processes until a signal ends them.

    Args:
        plan: what is served.
        count: how many, at least 2.
        arguments: those of the command, for the workers.
        log_level: how much this process logs: which workers end, and are started.

    Raises:
        ConfigError: the address cannot be bound, a worker cannot start, or they end
            again and again.
    """
    if plan.cluster is not None:
        raise ConfigError(
            "--workers makes a cluster of its own; leave [cluster] out, or start each"
            " node by itself, with a configuration of its own"
        )
    configure_logging(log_level)
    command = (sys.executable, "-m", "atomr_infer.cli", "serve", *arguments)
    for told in other_state(plan, workers=count):
        print_notice(told)
    with worker_folder() as folder:
        crew = Crew(plan, command, count=count, folder=folder)
        trio.run(crew.run)


def _how_ended(worker: _Worker, process: trio.Process) -> str:
    """Say how a worker has ended: with its status, or a signal's name."""
    code = process.returncode
    if code is None or code >= 0:
        how = f"ended with status {code}"
    else:
        how = f"was ended by {_signal_name(-code)}"
    return f"worker {worker.seat.number} (pid {process.pid}) {how}"


def _signal_name(number: int) -> str:
    """Return a signal's name; those between the real-time ones have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _furnish(folder: Path, nodes: Sequence[str]) -> None:
    """Put into the folder what makes the workers a cluster."""
    (folder / SEEDS).touch()
    make_folder(folder, cluster=CLUSTER, nodes=tuple(nodes), days=_CERTIFICATE_DAYS)
    cookie = folder / COOKIE
    cookie.touch(mode=0o600)
    cookie.write_text(secrets.token_hex())


@contextmanager
def _pipe_that_ends_with_us() -> Iterator[int]:
    """Return the reading end of a pipe that nobody writes to."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


async def _end(process: trio.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    with trio.move_on_after(_END_S):
        await process.wait()
        return
    process.kill()
    await process.wait()
