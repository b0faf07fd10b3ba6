"""What SIGHUP does to ``serve``: it reads all keys and its configuration anew.

That is what a service manager's *reload* sends.  The same signal comes when the
terminal of a program is closed, and then it ends ``serve`` as SIGTERM does.  And
who starts it under ``nohup`` has asked that nothing happens.
"""

from __future__ import annotations

import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.cli.output.banner import print_notice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.cli.serving.reload import Reloader
    from atomr_infer.cluster import Cluster

_STOP = (signal.SIGINT, signal.SIGTERM)


@attrs.frozen
class Signals:
    """Which signals do what.

    Attributes:
        stop: those that end ``serve``.
        renew: those that have the keys read anew.
    """

    stop: tuple[signal.Signals, ...]
    renew: tuple[signal.Signals, ...] = ()


def signals_here() -> Signals:
    """Return what the signals mean to a program that was started like this."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return Signals(_STOP)
    if sys.stdin is not None and sys.stdin.isatty():
        return Signals((*_STOP, signal.SIGHUP))
    return Signals(_STOP, (signal.SIGHUP,))


def open_hangups(
    signals: Signals,
) -> AbstractContextManager[AsyncIterator[int] | None]:
    """Return a block that takes the signals that renew; None: there are none."""
    if not signals.renew:
        return nullcontext()
    return trio.open_signal_receiver(*signals.renew)


async def renew_at(
    hangups: AsyncIterator[int], cluster: Cluster, reloader: Reloader
) -> None:
    """Read keys and configuration anew at each signal; never returns.

    Args:
        hangups: the signals.
        cluster: what serves.
        reloader: its configuration.
    """
    async for _ in hangups:
        # First the keys: a model that is new may take minutes to load.
        names = [deployment.name for deployment in reloader.plan.deployments]
        renewed = [name for name in names if cluster.renew_credentials(name)]
        told = ", ".join(renewed) or "no deployment has any"
        print_notice(f"SIGHUP: the keys are read anew: {told}")
        await reloader.reload("SIGHUP")
