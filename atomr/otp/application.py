"""Applications: named supervision trees with an order, run until told to stop.

::

    store = Application("store", start=lambda: Supervisor([child(Store)]))
    web = Application("web", start=make_web_tree, depends_on=("store",))
    trio.run(run_applications, [store, web])

They start each after those it depends on, and stop in reverse.  The first
SIGINT or SIGTERM, the ``stop`` event, or ``stop_applications()`` begins an
orderly stop; a second signal cancels everything.  What an application's end by
itself means, its restart type says, as for a node's root: a ``PERMANENT`` one
ends all.

:mod:`~atomr.otp.application_env` is what the code inside may ask.

Source: OTP ``application``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.core.application_config import Defaults
from atomr.core.checks import check_function, check_member, check_text, check_tuple
from atomr.core.child_spec import INFINITY, ChildKind, ChildSpec, Restart
from atomr.core.dependencies import start_order
from atomr.core.exits import unwrap
from atomr.errors import DependencyError, short
from atomr.otp.application_env import (
    APPLICATION,
    RUN,
    ApplicationInfo,
    Run,
    resolve_configs,
)
from atomr.otp.application_signals import Control, receive_signals
from atomr.otp.supervising import Supervising
from atomr.process.node import Node, open_node

if TYPE_CHECKING:
    import signal

    from atomr.refs import Pid

_NOTHING: Mapping[str, object] = {}


@attrs.frozen
class Application:
    """A supervision tree to be run by :func:`run_applications`.

    Attributes:
        name: unique; also the root's id.
        start: makes the top supervisor; the configuration is there already.
        depends_on: names of applications that must run before.
        restart: what its end by itself means: ``PERMANENT`` ends all with an
            error; ``TRANSIENT`` the same unless the reason is ``NORMAL``;
            ``TEMPORARY`` nothing.
        config: the configuration's defaults: an attrs instance, an attrs class
            (whose fields without a default must be given), or a mapping.
        description: what it is, for people.

    Raises:
        TypeError: a field is of another type.
    """

    name: str
    start: Callable[[], Supervising]
    depends_on: tuple[str, ...] = ()
    restart: Restart = Restart.PERMANENT
    config: Defaults = _NOTHING
    description: str = ""

    def __attrs_post_init__(self) -> None:
        try:
            check_text("name", self.name)
            check_function("start", self.start)
            check_tuple("depends_on", self.depends_on)
            check_member("restart", self.restart, Restart)
        except TypeError as error:
            raise TypeError(f"Application {short(self.name)}: {error}") from None

    async def run(
        self,
        *,
        config: object = _NOTHING,
        ready: Callable[[Node], None] | None = None,
        stop: trio.Event | None = None,
        handle_signals: bool = True,
    ) -> signal.Signals | None:
        """Run this application alone; see :func:`run_applications`.

        Args:
            config: overrides its own configuration.
            ready: as there, like what follows.
            stop: as there.
            handle_signals: as there.
        """
        return await run_applications(
            [self],
            config={self.name: config},
            ready=ready,
            stop=stop,
            handle_signals=handle_signals,
        )


async def run_applications(
    applications: Sequence[Application],
    *,
    config: Mapping[str, object] = _NOTHING,
    ready: Callable[[Node], None] | None = None,
    stop: trio.Event | None = None,
    handle_signals: bool = True,
    name: str = "node",
) -> signal.Signals | None:
    """Start the applications on a node, wait, and stop them.

    Args:
        applications: in any order.
        config: by application, what overrides its defaults: a mapping of some
            keys, or an instance of its class.
        ready: called once when all have started; must not block.
        stop: set it to begin the orderly stop.
        handle_signals: take over SIGINT and SIGTERM for the time of the run;
            only possible in the main thread.  Else a ``KeyboardInterrupt`` ends
            the run, in order, and a second one at once.
        name: the node's.

    Returns:
        The signal that ended the run; None: ``stop`` was set.

    Raises:
        DependencyError: names repeat, are missing, or form a cycle.
        ApplicationConfigError: the configuration is refused; nothing started.
        RuntimeError: it is to handle signals, and not in the main thread.
        StartError: an application did not start; those before it are stopped.
        RootExitError: an application ended by itself.
        KeyboardInterrupt: a third SIGINT broke a callback that computes, or one
            came while signals are not handled; all have been stopped.

    Cancellation: cancels all processes.
    """
    by_name = {application.name: application for application in applications}
    if len(by_name) != len(applications):
        names = tuple(application.name for application in applications)
        raise DependencyError("two applications have one name", names)
    order = start_order({a.name: a.depends_on for a in applications})
    control = Control(stop if stop is not None else trio.Event())
    run = Run(resolve_configs(applications, config), control.begin_stop)
    receiver = receive_signals(control) if handle_signals else nullcontext()
    token = RUN.set(run)
    try:
        with receiver as signals, control.everything:
            async with trio.open_nursery() as nursery:
                if signals is not None:
                    nursery.start_soon(control.listen, signals)
                await _run(control, run, name, [by_name[n] for n in order], ready)
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        leaf = unwrap(group)
        if leaf is group:
            raise
        raise leaf from leaf.__cause__
    finally:
        RUN.reset(token)
    return control.received


async def _run(
    control: Control,
    run: Run,
    name: str,
    applications: Sequence[Application],
    ready: Callable[[Node], None] | None,
) -> None:
    async with open_node(name) as node:
        control.starting = trio.CancelScope()
        with control.starting:
            for application in applications:
                pid = await _start(node, application)
                run.started.append(
                    ApplicationInfo(
                        application.name,
                        pid,
                        application.restart,
                        application.description,
                    )
                )
        control.starting = None
        if not control.stop.is_set() and ready is not None:
            ready(node)
        await control.stop.wait()


async def _start(node: Node, application: Application) -> Pid:
    # All that it starts inherits this.
    token = APPLICATION.set(application.name)
    try:
        return await node.start(_root(application))
    finally:
        APPLICATION.reset(token)


def _root(application: Application) -> ChildSpec:
    return ChildSpec(
        id=application.name,
        start=application.start,
        restart=application.restart,
        shutdown=INFINITY,
        kind=ChildKind.SUPERVISOR,
    )
