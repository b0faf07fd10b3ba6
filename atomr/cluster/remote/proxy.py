"""What stands here for a process of another node.

A proxy is a :class:`~atomr.process.process.Process` without a task and without code:
always idle, and woken in the moment that something is put into its mailbox, which it
then sends over the link.  So ``send``, ``cast``, ``call``, ``link``, ``monitor``,
``stop`` and all else work on a pid of another node as on any other, and cost nothing
more for those of this one.

Who waits for the end of a process is written into its tables: its links, watchers,
hooks, sleepers, names.  Those of a proxy tell the other node when the first row comes
and when the last one goes, so one message over there watches for all of them.

A proxy ends when its process does, with the reason that is told; and with its link,
with ``NOCONNECTION``.  One that was made while there was no link ends the same way as
soon as somebody waits for it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from trio.lowlevel import enable_ki_protection

from atomr.cluster.remote import frames
from atomr.cluster.remote.proxy_tables import Calls, LazyTie, Links, Names, Waiting
from atomr.core.child_spec import INFINITY
from atomr.core.exits import NOCONNECTION, NOPROC, ExitReason
from atomr.core.messages import Down
from atomr.errors import (
    AtomrInternalError,
    LinkBusyError,
    LinkDownError,
    LinkMessageError,
    NoConnectionError,
    RemoteCallError,
    UnregisteredMessageError,
)
from atomr.process.behaviour import Startable
from atomr.process.calls import CAST, Cast, From
from atomr.process.context import find_process
from atomr.process.process import EMPTY, Process, Status
from atomr.process.report import log
from atomr.refs import Pid

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.cluster.remote.frames import Target
    from atomr.cluster.remote.pids import Life, RemotePid
    from atomr.cluster.remote.session import Session
    from atomr.process.parking import ParkSpot
    from atomr.process.task_process import TaskProcess
    from atomr.refs import Ref


class RemoteBehaviour(Startable):
    """What a proxy says of the code that runs elsewhere."""

    async def run_process(self, process: TaskProcess) -> NoReturn:
        """Refuse: nothing of it runs here."""
        raise AtomrInternalError(f"{process.pid!r} runs on another node")

    def answers_stop(self, process: Process) -> bool:
        """Whether it reads stop requests: they are the other node's affair."""
        return True

    def ask_to_stop(self, process: Process, reason: ExitReason) -> None:
        """Ask over there."""
        assert isinstance(process, RemoteProcess), "a behaviour of proxies alone"
        process.ask_to_stop(reason)

    def process_label(self) -> str:
        """Return what it is."""
        return "process of another node"


_BEHAVIOUR: Final = RemoteBehaviour()

_OF_WAITERS: Final = ("watchers", "exit_spots", "on_end", "names")
"""Its tables of those who wait for its end; not made here to be looked at."""


class RemoteProcess(Process):
    """The proxy of one process of another node.

    Attributes:
        life: of that node.
        target: its number there, or a name that is looked up at each use.
        session: what goes on over the link; None: there was none.
        reaches: what is sent to it can arrive; for good no longer once it cannot.
        watch: the number under which the other node tells of the end; 0: nobody
            waits for it.
    """

    __slots__ = ("__weakref__", "life", "reaches", "session", "target", "watch")

    links = LazyTie(Links)
    watchers: LazyTie[Waiting[Ref, Process]] = LazyTie(Waiting)
    exit_spots: LazyTie[Waiting[ParkSpot, None]] = LazyTie(Waiting)
    on_end: LazyTie[Waiting[object, Callable[[], object]]] = LazyTie(Waiting)
    names = LazyTie(Names)
    deferred = LazyTie(Calls)

    task = None
    opens_casts = True

    def __init__(self, life: Life, target: Target, session: Session | None) -> None:
        # Not the base's: it has no number of this node, and is in no table of it.
        self.node = life.node
        self.behaviour = _BEHAVIOUR
        self.parent = life.node
        self.shutdown = INFINITY
        self.life = life
        self.target = target
        self.session = session
        self.reaches = session is not None
        self.watch = 0
        self.idle = True
        self.status = Status.RUNNING
        self.was_started = True
        self.trapping = False
        self.inbox = []
        self.batch = self.signals = EMPTY
        self.current = self.starter = self.waiting_for = None
        self.reason = self.kill_reason = None
        self.limit = self.debug = self.ties = None
        self.started_at = 0.0

    @property
    def pid(self) -> RemotePid:  # type: ignore[override]
        """Its pid: the one that somebody holds, or a new one where nobody does."""
        return self.life.pid(self.target)

    # --- what is sent -----------------------------------------------------------------

    def wake(self) -> None:
        """Send what is in the mailbox.

        Raises:
            UnregisteredMessageError: a message does not cross.
            LinkMessageError: it is over what a link carries.
            ValueError: it is nested too deep.
        """
        # One, as it is woken for each.
        while self.inbox:
            self._forward(self.inbox.pop())

    def deliver(self, message: object) -> None:
        """Send a message for somebody who is told nothing, as a timer is."""
        if type(message) is From:
            self.call_now(message)
            return
        try:
            self._forward(message)
        except (UnregisteredMessageError, LinkMessageError, ValueError) as error:
            log.error("a message to %r was not sent: %s", self.pid, error)
            self.life.drop(self.target, "unsendable")

    def _forward(self, item: object) -> None:
        if type(item) is From:
            self.call_now(item)
            return
        session = self.session
        if session is None or not session.up:
            self.life.drop(self.target, "no_connection")
            return
        # Flat, as it is the path of each message.
        frame: frames.Send | frames.CastTo
        if type(item) is tuple and item and item[0] is CAST:
            tag, body = session.codec.encode(item[1])
            frame = frames.CastTo(self.target, tag, body)
        elif type(item) is Cast:
            tag, body = session.codec.encode(item.message)
            frame = frames.CastTo(self.target, tag, body)
        else:
            tag, body = session.codec.encode(item)
            frame = frames.Send(self.target, tag, body)
        try:
            session.send(frame)
        except LinkBusyError:
            self.life.drop(self.target, "busy")
        except LinkDownError:
            self.life.drop(self.target, "no_connection")

    def call_now(self, ref: From) -> None:
        """Send a call.

        Raises:
            UnregisteredMessageError: the request does not cross.
            ValueError: it is nested too deep.
        """
        session = self.session
        if session is None or not session.up:
            ref.fail(NoConnectionError(ref.target, ref.request))
            return
        tag, body = session.codec.encode(ref.request)
        caller = 0 if ref.caller is None else self._number(ref.caller.pid)
        number = session.begin(ref)
        try:
            session.send(frames.Call(number, caller, self.target, tag, body))
        except (LinkBusyError, LinkMessageError) as error:
            session.calls.pop(number)
            code = "busy" if isinstance(error, LinkBusyError) else "too_long"
            failed = RemoteCallError(
                ref.target, ref.request, code=code, detail=str(error)
            )
            failed.__cause__ = error
            ref.fail(failed)
        except LinkDownError:
            session.calls.pop(number, None)
            ref.fail(NoConnectionError(ref.target, ref.request))
        else:
            ref.deferred = True
            self._waiting_calls()[ref] = number

    def wire_links(self) -> Links:
        """Return its links, as the other node's doings are written into them."""
        links = self.links
        assert isinstance(links, Links), "it lives"
        return links

    def _number(self, pid: Pid) -> int:
        """Return the number by which the other node knows a process of ours.

        A process of a third node, whose message we hand on, is nobody there; nor is
        one of another ``open_node`` of this program, whose number is somebody else's.
        """
        process = find_process(pid)
        is_ours = process is None or process.node is self.node
        return pid.number if type(pid) is Pid and is_ours else 0

    def _waiting_calls(self) -> Calls:
        calls = self.deferred
        assert isinstance(calls, Calls), "it lives"
        return calls

    def exit_signal(
        self,
        reason: ExitReason,
        sender: Pid | None,
        *,
        to_self: bool = False,
        linked: bool = False,
    ) -> None:
        """Send an exit signal, or the end of a linked process, over there."""
        session = self.session
        if session is None:
            return
        number = 0 if sender is None else self._number(sender)
        why = session.told(reason)
        if linked:
            assert isinstance(self.target, int), "names have no links"
            session.signal(frames.LinkEnded(number, self.target, why))
        else:
            session.signal(frames.Signal(self.target, number, why))

    def ask_to_stop(self, reason: ExitReason) -> None:
        """Ask for an orderly end."""
        if self.session is not None:
            self.session.signal(frames.Stop(self.target, self.session.told(reason)))

    def cancel(self, reason: ExitReason) -> None:
        """Ask for the end: what is sure here is only that the request is sent."""
        self.ask_to_stop(reason)

    def end_around(self) -> None:
        """Do nothing: it is not in what is around it here."""

    # --- the end ----------------------------------------------------------------------

    def waited_for(self) -> None:
        """Note that somebody waits for the end, if nobody did."""
        if self.watch:
            return
        if self.session is not None and self.session.up:
            self.watch = self.session.watch(self)
        else:
            # Not at once: whoever waits is still writing down that it does.
            self.watch = -1
            self.node.timers.after(0.0, partial(self.finish, NOCONNECTION))

    def left(self) -> None:
        """Note that somebody waits no longer; perhaps that was the last."""
        if self.watch <= 0 or self.status is Status.EXITED:
            return
        if any(getattr(self.ties, table, None) for table in _OF_WAITERS):
            return
        assert self.session is not None, "it has a number"
        self.session.unwatch(self.watch)
        self.watch = 0

    @enable_ki_protection
    def finish(self, reason: ExitReason) -> None:
        """Fail the callers, tell links and monitors, and free the names here."""
        if self.status is Status.EXITED:
            return
        calls = self.deferred if self.ties is not None else None
        if isinstance(calls, Calls) and self.session is not None:
            self.session.forget_calls(calls.numbers())
        self.holder_ended(reason)
        self._fail_callers(reason)

    @enable_ki_protection
    def holder_ended(self, reason: ExitReason) -> None:
        """Do the same but for the callers: a name may have another holder by now."""
        self.status = Status.EXITED
        self.idle = self.reaches = False
        self.reason = reason
        if self.ties is None:
            return
        if reason is NOPROC and isinstance(self.target, str):
            self._nobody_had_the_name()
        self._release()
        self._tell_others(reason)
        self._wake_waiters()

    def _nobody_had_the_name(self) -> None:
        watchers, self.watchers = self.watchers, None
        for ref, watcher in (watchers or {}).items():
            if watcher.monitoring is not None:
                watcher.monitoring.pop(ref, None)
            watcher.deliver(Down(ref, None, NOPROC))
