"""Applications: named supervision trees with an order, run until told to stop.

::

    store = Application("store", start=lambda: Supervisor([child(Store)]))
    web = Application("web", start=make_web_tree, depends_on=("store",))
    trio.run(run_applications, [store, web])

They start each after those it depends on, and stop in reverse.  The first
SIGINT or SIGTERM, or the ``stop`` event, begins an orderly stop; a second
signal cancels everything.  What an application's end by itself means, its
restart type says, as for a node's root: a ``PERMANENT`` one ends all.

Source: OTP ``application``.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterable, Callable, Sequence
from contextlib import nullcontext

import attrs
import trio

from atomr.core.child_spec import INFINITY, ChildKind, ChildSpec, Restart
from atomr.core.dependencies import start_order
from atomr.core.exits import unwrap
from atomr.errors import DependencyError
from atomr.otp.supervising import Supervising
from atomr.process.node import Node, open_node
from atomr.process.report import log

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@attrs.frozen
class Application:
    """A supervision tree to be run by :func:`run_applications`.

    Attributes:
        name: unique; also the root's id.
        start: makes the top supervisor.
        depends_on: names of applications that must run before.
        restart: what its end by itself means: ``PERMANENT`` ends all with an
            error; ``TRANSIENT`` the same unless the reason is ``NORMAL``;
            ``TEMPORARY`` nothing.
    """

    name: str
    start: Callable[[], Supervising]
    depends_on: tuple[str, ...] = ()
    restart: Restart = Restart.PERMANENT

    async def run(
        self,
        *,
        ready: Callable[[Node], None] | None = None,
        stop: trio.Event | None = None,
        handle_signals: bool = True,
    ) -> signal.Signals | None:
        """Run this application alone; see :func:`run_applications`."""
        return await run_applications(
            [self], ready=ready, stop=stop, handle_signals=handle_signals
        )


async def run_applications(
    applications: Sequence[Application],
    *,
    ready: Callable[[Node], None] | None = None,
    stop: trio.Event | None = None,
    handle_signals: bool = True,
    name: str = "node",
) -> signal.Signals | None:
    """Start the applications on a node, wait, and stop them.

    Args:
        applications: in any order.
        ready: called once when all have started; must not block.
        stop: set it to begin the orderly stop.
        handle_signals: take over SIGINT and SIGTERM for the time of the run;
            only possible in the main thread.
        name: the node's.

    Returns:
        The signal that ended the run; None: ``stop`` was set.

    Raises:
        DependencyError: names repeat, are missing, or form a cycle.
        StartError: an application did not start; those before it are stopped.
        RootExitError: an application ended by itself.

    Cancellation: cancels all processes.
    """
    by_name = {application.name: application for application in applications}
    if len(by_name) != len(applications):
        names = tuple(application.name for application in applications)
        raise DependencyError("two applications have one name", names)
    order = start_order({a.name: a.depends_on for a in applications})
    control = _Control(stop if stop is not None else trio.Event())
    receiver = trio.open_signal_receiver(*_SIGNALS) if handle_signals else nullcontext()
    with receiver as signals, trio.CancelScope() as control.everything:
        try:
            async with trio.open_nursery() as nursery:
                if signals is not None:
                    nursery.start_soon(control.listen, signals)
                await _run(control, name, [by_name[n] for n in order], ready)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            leaf = unwrap(group)
            if leaf is group:
                raise
            raise leaf from leaf.__cause__
    return control.received


async def _run(
    control: _Control,
    name: str,
    applications: Sequence[Application],
    ready: Callable[[Node], None] | None,
) -> None:
    async with open_node(name) as node:
        control.starting = trio.CancelScope()
        with control.starting:
            for application in applications:
                await node.start(_root(application))
        control.starting = None
        if not control.stop.is_set() and ready is not None:
            ready(node)
        await control.stop.wait()


@attrs.define
class _Control:
    """The two ways to end a run, the orderly and the quick."""

    stop: trio.Event
    everything: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    starting: trio.CancelScope | None = None
    received: signal.Signals | None = None

    async def listen(self, signals: AsyncIterable[int]) -> None:
        """Stop at the first signal, cancel at the second."""
        async for number in signals:
            if self.received is not None:
                log.warning("second signal: cancelling everything")
                self.everything.cancel()
                return
            self.received = signal.Signals(number)
            log.info("%s: stopping", self.received.name)
            self.stop.set()
            if self.starting is not None:
                # A start may take minutes; an orderly stop need not wait for it.
                self.starting.cancel()


def _root(application: Application) -> ChildSpec:
    return ChildSpec(
        id=application.name,
        start=application.start,
        restart=application.restart,
        shutdown=INFINITY,
        kind=ChildKind.SUPERVISOR,
    )
