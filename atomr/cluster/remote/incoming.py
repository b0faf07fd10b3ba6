"""What is done with each thing that another node says about processes.

It is done on the stack of the task that reads the link: nothing here waits.  A call
to a server that has nothing to do is served there as well, as a call from this node
would be on its caller's stack.

A peer that breaks the rules of the conversation is cut off; a message that is not
registered here is refused alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from atomr.cluster.remote import frames, reasons
from atomr.cluster.remote.codec import RefusedError
from atomr.core.exits import NOPROC
from atomr.errors import (
    LinkMessageError,
    MailboxFullError,
    NoProcessError,
    RemoteCallError,
    ServerDownError,
    UnregisteredMessageError,
)
from atomr.http2 import Reason
from atomr.process import mailbox
from atomr.process.calls import CallState, Cast, From
from atomr.process.parking import ParkSpot
from atomr.process.report import log
from atomr.process.stopping import begin_stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.cluster.remote.frames import Frame, Target
    from atomr.cluster.remote.pids import Life
    from atomr.cluster.remote.proxy import RemoteProcess
    from atomr.cluster.remote.session import Session
    from atomr.process.process import Process
    from atomr.refs import Pid

Handler: TypeAlias = "Callable[[Session, Any], None]"

MAX_HELD: Final = 262_144
"""Calls that wait for us, watches, linked processes of one peer; then it is cut off."""


def handle(session: Session, frame: Frame) -> None:
    """Do what a frame says."""
    _HANDLERS[type(frame)](session, frame)


def _find(session: Session, target: Target) -> Process | None:
    node = session.life.node
    if isinstance(target, int):
        return node.processes.get(target)
    return node.names.get(target)


# --- messages -------------------------------------------------------------------------


def _on_send(session: Session, frame: frames.Send) -> None:
    _put(session, frame, _decoded(session, frame))


def _on_cast(session: Session, frame: frames.CastTo) -> None:
    message = _decoded(session, frame)
    _put(session, frame, message if message is _REFUSED else Cast((message,)))


def _decoded(session: Session, frame: frames.Send | frames.CastTo) -> object:
    try:
        return session.codec.decode(frame.tag, frame.body)
    except RefusedError as error:
        session.life.refuse(frame.to, error.code, error.detail)
        return _REFUSED


def _put(session: Session, frame: frames.Send | frames.CastTo, item: object) -> None:
    process = _find(session, frame.to)
    if process is None or item is _REFUSED:
        return
    try:
        full = process.limit is not None and mailbox.refuses(process)
    except MailboxFullError as error:
        full = True
        session.life.refuse(frame.to, "mailbox_full", str(error))
    if not full:
        process.deliver(item)


# --- calls ----------------------------------------------------------------------------


class _Caller:
    """Who calls from another node, as far as a ``From`` needs to know."""

    __slots__ = ("_life", "_number")

    task = None

    def __init__(self, life: Life, number: int) -> None:
        self._life = life
        self._number = number

    @property
    def pid(self) -> Pid:
        return self._life.pid(self._number)


class _Answer(ParkSpot):
    """Where the caller would sleep; settling the call sends the answer instead."""

    __slots__ = ("_number", "_ref", "_session")

    def __init__(self, session: Session, number: int, ref: From) -> None:
        super().__init__()
        self._session = session
        self._number = number
        self._ref = ref

    def wake(self) -> None:
        """Send the reply, or why there is none."""
        session, ref = self._session, self._ref
        if session.answering.pop(self._number, None) is None:
            return
        # It refers to the call, which refers to it.
        ref.spot = None
        if ref.state is CallState.REPLIED:
            _reply(session, self._number, ref.value)
        else:
            _fail(session, self._number, ref)


def _reply(session: Session, number: int, value: object) -> None:
    try:
        tag, body = session.codec.encode(value)
        session.signal(
            frames.Reply(number, tag, body), size_bytes=len(cast(bytes, body))
        )
    except (UnregisteredMessageError, ValueError) as error:
        _bad_reply(session, number, "bad_reply", str(error))
    except LinkMessageError as error:
        _bad_reply(session, number, "long_reply", str(error))


def _bad_reply(session: Session, number: int, code: str, detail: str) -> None:
    log.error("a reply for %s was not sent: %s", session.life.origin, detail)
    session.signal(frames.Failed(number, code, reasons.words(detail)))


def _fail(session: Session, number: int, ref: From) -> None:
    error = ref.error
    del ref.error
    if type(error) is ServerDownError and error.request is ref.request:
        failed = frames.Failed(number, "down", session.told(error.reason))  # type: ignore[arg-type]
    else:
        failed = frames.Failed(number, "raised", session.told_error(error))
    session.signal(failed)


def _on_call(session: Session, frame: frames.Call) -> None:
    if frame.id in session.answering or len(session.answering) >= MAX_HELD:
        session.link.end(Reason.MALFORMED, "calls that cannot be", fault=True)
        return
    process = _find(session, frame.to)
    if process is None:
        session.signal(frames.Failed(frame.id, "no_process", reasons.words("")))
        return
    try:
        request = session.codec.decode(frame.tag, frame.body)
    except RefusedError as error:
        session.life.refuse(frame.to, error.code, error.detail)
        why = reasons.words(error.detail)
        session.signal(frames.Failed(frame.id, error.code, why))
        return
    caller = _Caller(session.life, frame.caller) if frame.caller else None
    ref = From(request, process.pid, process, cast("Process | None", caller))
    ref.spot = _Answer(session, frame.id, ref)
    session.answering[frame.id] = ref
    if process.idle:
        process.call_now(ref)
    else:
        process.deliver(ref)


def _on_cancel(session: Session, frame: frames.Cancel) -> None:
    ref = session.answering.pop(frame.id, None)
    if ref is not None:
        ref.spot = None
        ref.give_up()


def _on_reply(session: Session, frame: frames.Reply) -> None:
    ref = session.calls.pop(frame.id, None)
    if ref is None:
        session.late += 1
        return
    try:
        value = session.codec.decode(frame.tag, frame.body)
    except RefusedError as error:
        detail = f"the reply is refused here: {error.detail}"
        ref.fail(
            RemoteCallError(ref.target, ref.request, code="bad_reply", detail=detail)
        )
    else:
        ref.reply(value)


def _on_failed(session: Session, frame: frames.Failed) -> None:
    ref = session.calls.pop(frame.id, None)
    if ref is None:
        session.late += 1
        return
    error: Exception
    match frame.code:
        case "raised":
            error = reasons.error_of(frame.why)
        case "down":
            why = reasons.reason_of(frame.why, session.codec)
            error = ServerDownError(ref.target, ref.request, why)
        case "no_process":
            error = NoProcessError(ref.target, ref.request)
        case code:
            error = RemoteCallError(
                ref.target, ref.request, code=code, detail=frame.why.text
            )
    ref.fail(error)


# --- signals --------------------------------------------------------------------------


def _on_signal(session: Session, frame: frames.Signal) -> None:
    process = _find(session, frame.to)
    if process is not None:
        sender = session.life.pid(frame.sender) if frame.sender else None
        process.exit_signal(reasons.reason_of(frame.reason, session.codec), sender)


def _on_stop(session: Session, frame: frames.Stop) -> None:
    process = _find(session, frame.to)
    if process is not None:
        reason = reasons.reason_of(frame.reason, session.codec)
        begin_stop(process, process.shutdown, reason, orderly=True)


def _on_watch(session: Session, frame: frames.Watch) -> None:
    if frame.id in session.watched or len(session.watched) >= MAX_HELD:
        session.link.end(Reason.MALFORMED, "watches that cannot be", fault=True)
        return
    process = _find(session, frame.to)
    if process is None:
        session.signal(frames.Ended(frame.id, session.told(NOPROC)))
    else:
        session.watch_for(frame.id, process)


def _on_unwatch(session: Session, frame: frames.Unwatch) -> None:
    session.watch_no_more(frame.id)


def _on_ended(session: Session, frame: frames.Ended) -> None:
    proxy = session.watches.pop(frame.id, None)
    if proxy is None:
        return
    reason = reasons.reason_of(frame.reason, session.codec)
    if isinstance(proxy.target, str):
        proxy.holder_ended(reason)
    else:
        # Numbers are not used twice: its pid stays dead.
        proxy.pid.ended = True
        proxy.finish(reason)


# --- links ----------------------------------------------------------------------------


def _on_link(session: Session, frame: frames.LinkTo) -> None:
    if session.unlinks.covers((frame.to, frame.sender)):
        return
    process = session.life.node.processes.get(frame.to)
    if process is None:
        gone = frames.LinkEnded(frame.to, frame.sender, session.told(NOPROC))
        session.signal(gone)
        return
    if session.life.size >= MAX_HELD:
        session.link.end(Reason.MALFORMED, "links that cannot be", fault=True)
        return
    proxy = session.life.proxy(frame.sender)
    links = proxy.wire_links()
    if process not in links:
        links.add_quietly(process)
        if process.links is None:
            process.links = {}
        process.links[proxy] = None


def _on_unlink(session: Session, frame: frames.Unlink) -> None:
    _undo(session, ours=frame.to, theirs=frame.sender)
    session.signal(frames.Unlinked(frame.to, frame.sender, frame.id))


def _on_unlinked(session: Session, frame: frames.Unlinked) -> None:
    session.unlinks.acknowledged((frame.to, frame.sender), frame.id)


def _on_link_ended(session: Session, frame: frames.LinkEnded) -> None:
    linked = _undo(session, ours=frame.to, theirs=frame.sender)
    if linked is not None:
        process, proxy = linked
        reason = reasons.reason_of(frame.reason, session.codec)
        process.exit_signal(reason, proxy.pid, linked=True)


def _undo(
    session: Session, *, ours: int, theirs: int
) -> tuple[Process, RemoteProcess] | None:
    process = session.life.node.processes.get(ours)
    proxy = session.life.known(theirs)
    if process is None or proxy is None or not proxy.wire_links().drop_quietly(process):
        return None
    if process.links is not None:
        process.links.pop(proxy, None)
    return process, proxy


_REFUSED: Final = object()

_HANDLERS: Final[dict[type, Handler]] = {
    frames.Send: _on_send,
    frames.CastTo: _on_cast,
    frames.Call: _on_call,
    frames.Reply: _on_reply,
    frames.Failed: _on_failed,
    frames.Cancel: _on_cancel,
    frames.Signal: _on_signal,
    frames.Stop: _on_stop,
    frames.Watch: _on_watch,
    frames.Unwatch: _on_unwatch,
    frames.Ended: _on_ended,
    frames.LinkTo: _on_link,
    frames.Unlink: _on_unlink,
    frames.Unlinked: _on_unlinked,
    frames.LinkEnded: _on_link_ended,
}
