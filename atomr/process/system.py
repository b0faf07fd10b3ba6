"""System messages: what every behaviour answers, whatever its own protocol is.

A system message is a call that lies among the signals, so that neither a long
mailbox nor a suspended process hides it.  It is served between two messages,
by the process itself; one that sleeps is served at once, on the asker's stack.

:class:`Debug` is made when somebody first asks for something that needs it, and
dropped with the last such thing: a process that nobody looks into pays one test
per message.

Source: OTP ``sys``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import attrs

from atomr.errors import NoProcessError, SystemMessageError, short
from atomr.process.calls import DEFAULT_TIMEOUT_S, From, Request, wait_for_reply
from atomr.process.context import CURRENT, find_process
from atomr.process.report import log
from atomr.refs import Pid

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.process.process import Process
    from atomr.refs import Address

R = TypeVar("R")


@attrs.frozen
class SystemEvent:
    """Something that a process did.

    Attributes:
        kind: ``"in"``: it took the message to handle it; ``"out"``: the
            handling is over.
        pid: the process.
        message: what it handles: a call's ``From``, a ``Cast``, anything sent.
        detail: of an ``"out"``: what the callback returned; of a GenServer's
            only a ``Stop``, which ends it.
    """

    kind: str
    pid: Pid
    message: object
    detail: object = None


Tracer: TypeAlias = "Callable[[SystemEvent], None]"


@attrs.define
class Debug:
    """What is switched on for one process.

    Attributes:
        suspended: it handles system messages only.
        tracers: called with each event, by id.
        events: the last ones; None: they are not kept.
        counting_since: when counting began, monotonic seconds; None: it did not.
        messages_in: handled since then.
        messages_out: replies and results since then.
    """

    suspended: bool = False
    tracers: dict[str, Tracer] = attrs.field(factory=dict)
    events: deque[SystemEvent] | None = None
    counting_since: float | None = None
    messages_in: int = 0
    messages_out: int = 0

    @property
    def needed(self) -> bool:
        """Whether anything is switched on."""
        return bool(
            self.suspended
            or self.tracers
            or self.events is not None
            or self.counting_since is not None
        )

    def began(self, process: Process, message: object) -> None:
        """Note that the process takes a message."""
        self.messages_in += 1
        self._tell(SystemEvent("in", process.pid, message))

    def ended(self, process: Process, message: object, result: object) -> None:
        """Note what came of it."""
        self.messages_out += 1
        self._tell(SystemEvent("out", process.pid, message, result))

    def _tell(self, event: SystemEvent) -> None:
        if self.events is not None:
            self.events.append(event)
        for tracer_id, tracer in tuple(self.tracers.items()):
            try:
                tracer(event)
            except Exception:  # noqa: BLE001 - reported; a tracer breaks no server
                del self.tracers[tracer_id]
                log.exception("tracer %r of %r failed: removed", tracer_id, event.pid)


class SystemRequest(Request[R], Generic[R]):
    """What can be asked of any behaviour."""

    __slots__ = ()

    @abstractmethod
    def apply(self, process: Process) -> R:
        """Do it; between two messages, so the state is whole."""


def serve_system(process: Process, ref: From) -> None:
    """Serve one system message."""
    request = ref.request
    assert isinstance(request, SystemRequest), "nothing else lies among the signals"
    try:
        value = request.apply(process)
    except Exception as error:  # noqa: BLE001 - goes to the asker; the process lives
        ref.fail(_failed(process, request, error))
    else:
        ref.reply(value)


def _failed(process: Process, request: object, error: Exception) -> SystemMessageError:
    if isinstance(error, SystemMessageError):
        return error
    failure = SystemMessageError(process.pid, request, short(error))
    failure.__cause__ = error
    return failure


async def ask_system(
    server: Address,
    request: SystemRequest[R],
    *,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> R:
    """Send a system message and wait for the answer.

    Args:
        server: pid or name.
        request: what to ask.
        timeout_s: bound in seconds; None: no bound.

    Raises:
        NoProcessError: there is no such process.
        SystemMessageError: it answers none (a plain process, an attached
            block), or the request failed; the process lives on.
        ServerDownError: it ended before it answered.
        CallTimeoutError: no answer in time: it is at work on a message.
    """
    process = find_process(server)
    if process is None:
        raise NoProcessError(server, request)
    if not process.behaviour.answers_system_messages:
        problem = f"a {process.behaviour.process_label()} answers no system messages"
        raise SystemMessageError(process.pid, request, problem)
    ref = From(request, server, process, CURRENT.get())
    # One that receives in a callback sleeps as well, but its state may not be whole.
    if process.idle and process.current is None:
        serve_system(process, ref)
    else:
        process.push_signal(ref)
    value: R = await wait_for_reply(ref, timeout_s)  # type: ignore[assignment]
    return value


def debug_of(process: Process) -> Debug:
    """Return what is switched on, made if need be."""
    if process.debug is None:
        process.debug = Debug()
    return process.debug


def settle_debug(process: Process) -> None:
    """Drop what is no longer needed, and let the process look again."""
    if process.debug is not None and not process.debug.needed:
        process.debug = None
    process.wake()
