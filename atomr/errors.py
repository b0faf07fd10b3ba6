"""The error tree of atomr.

One root, split by whose fault it is: the caller's, the other process's, ours.
Every error carries the values it speaks of as attributes.  Messages say the
operation, the value and what was expected.
"""

from __future__ import annotations

import reprlib

# A request may hold a megabyte of prompt; a log line must not.
_SHORT = reprlib.Repr()  # its keyword arguments came with Python 3.12
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 120, 160


def short(value: object) -> str:
    """Return ``repr(value)`` cut to a length fit for a log line; never raises."""
    try:
        return _SHORT.repr(value)
    except Exception as error:  # noqa: BLE001 - a value's own code; said in its place
        return f"<{type(value).__name__}: repr raised {type(error).__name__}>"


class AtomrError(Exception):
    """Root of all errors that atomr and what is built on it raise."""


class AtomrInternalError(AtomrError):
    """A bug in atomr itself; please report it with the traceback."""


# --- calls --------------------------------------------------------------------


class CallError(AtomrError):
    """A ``call`` got no reply.

    Attributes:
        server: the pid or name that was called.
        request: the request, so that a log line says what was asked.
    """

    def __init__(self, server: object, request: object) -> None:
        self.server = server
        self.request = request
        # The text is made when it is read: most of these are caught, not shown.
        super().__init__(server, request)

    def __str__(self) -> str:
        """Return ``call(server, request): what went wrong``."""
        return f"call({self.server!r}, {short(self.request)}): {self._problem()}"

    def __repr__(self) -> str:
        """Return the text as well: as an exit reason this is all that is seen."""
        return f"{type(self).__name__}({str(self)!r})"

    def _problem(self) -> str:
        return "no reply"


class NoProcessError(CallError):
    """Nothing lives under that pid or name; the request was not delivered."""

    def _problem(self) -> str:
        return "no such process"


class NoRegistryError(NoProcessError):
    """No registry or pubsub runs under that name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, None)

    def __str__(self) -> str:
        """Return which name it is."""
        return f"no registry runs under the name {self.server!r}"


class ServerDownError(CallError):
    """The server exited before replying; the request may have taken effect.

    Attributes:
        reason: the server's exit reason (see ``atomr.core.exits``).  An exception
            is the ``__cause__`` as well.
    """

    def __init__(self, server: object, request: object, reason: object) -> None:
        super().__init__(server, request)
        self.reason = reason
        if isinstance(reason, BaseException):
            # The caller's traceback then shows where the server failed.
            self.__cause__ = reason

    def _problem(self) -> str:
        return f"the server exited before replying: {short(self.reason)}"


class CallTimeoutError(CallError):
    """No reply within ``timeout_s``; the server may still act on the request.

    Attributes:
        timeout_s: the bound in seconds that passed.
    """

    def __init__(self, server: object, request: object, timeout_s: float) -> None:
        super().__init__(server, request)
        self.timeout_s = timeout_s

    def _problem(self) -> str:
        return f"no reply within {self.timeout_s} s"


class CallCycleError(CallError):
    """The call can never be answered: the server waits, in turn, for the caller.

    Attributes:
        chain: the pids from the caller through all that wait, back to the caller.
    """

    def __init__(
        self, server: object, request: object, chain: tuple[object, ...]
    ) -> None:
        super().__init__(server, request)
        self.chain = chain

    def _problem(self) -> str:
        return f"deadlock {' -> '.join(map(repr, self.chain))}"


class SystemMessageError(CallError):
    """A process answers no system messages, or one failed; it lives on.

    Attributes:
        problem: what went wrong.
    """

    def __init__(self, server: object, request: object, problem: str) -> None:
        super().__init__(server, request)
        self.problem = problem

    def _problem(self) -> str:
        return self.problem


class MailboxFullError(AtomrError):
    """A bounded mailbox is full, and its policy is not to drop.

    Attributes:
        to: the pid whose mailbox it is.
        size: its bound in messages.
    """

    def __init__(self, to: object, size: int, *, hint: str = "") -> None:
        self.to = to
        self.size = size
        super().__init__(f"mailbox of {to!r} is full ({size} messages){hint}")


# --- processes ------------------------------------------------------------------


class NoNodeError(AtomrError):
    """There is no node around this task: it runs outside ``open_node()``."""


class WrongThreadError(AtomrError):
    """A call came from another thread than the one that the node runs in."""


class NotAProcessError(AtomrError):
    """The operation needs a process, and this task is none (or is its helper)."""


class NameTakenError(AtomrError):
    """Another live process holds the name.

    Attributes:
        name: the name asked for.
        pid: its holder.
    """

    def __init__(self, name: str, pid: object) -> None:
        self.name = name
        self.pid = pid
        super().__init__(f"register({name!r}): {pid!r} has that name")


class NotRegisteredError(AtomrError):
    """No process took the name within ``timeout_s``.

    Attributes:
        name: the name.
        timeout_s: the bound in seconds that passed.
    """

    def __init__(self, name: str, timeout_s: float) -> None:
        self.name = name
        self.timeout_s = timeout_s
        problem = f"no process has that name within {timeout_s} s"
        super().__init__(f"wait_registered({name!r}): {problem}")


class ReceiveTimeoutError(AtomrError):
    """No matching message came within ``timeout_s``.

    Attributes:
        timeout_s: the bound in seconds that passed.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(f"receive(): no matching message within {timeout_s} s")


class ProcessKilledError(AtomrError):
    """The attached block was cancelled through its process, not by its caller.

    Attributes:
        pid: the attached process.
        reason: its exit reason.
    """

    def __init__(self, pid: object, reason: object) -> None:
        self.pid = pid
        self.reason = reason
        super().__init__(f"{pid!r} was stopped: {short(reason)}")


class RootExitError(AtomrError):
    """A root of the node ended by itself, so the node's block was cancelled.

    Attributes:
        pid: the root process.
        reason: its exit reason; for a supervisor that gave up a ``Shutdown``
            with a ``GaveUp``.  An exception is the ``__cause__`` as well.
    """

    def __init__(self, pid: object, reason: object) -> None:
        self.pid = pid
        self.reason = reason
        super().__init__(f"root {pid!r} exited: {short(reason)}")


# --- tasks ------------------------------------------------------------------------


class TaskError(AtomrError):
    """A task gave no value.

    Attributes:
        task: the task's pid; None for one that was made complete.
    """

    def __init__(self, task: object, problem: str) -> None:
        self.task = task
        super().__init__(f"task {task!r}: {problem}")


class TaskExitError(TaskError):
    """The task ended without a value.

    Attributes:
        reason: its exit reason; an exception is the ``__cause__`` as well.
    """

    def __init__(self, task: object, reason: object) -> None:
        self.reason = reason
        super().__init__(task, f"ended without a value: {short(reason)}")
        if isinstance(reason, BaseException):
            self.__cause__ = reason


class TaskTimeoutError(TaskError):
    """The task had not ended within ``timeout_s``.

    Attributes:
        timeout_s: the bound in seconds that passed.
    """

    def __init__(self, task: object, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(task, f"not ended within {timeout_s} s")


# --- supervision ------------------------------------------------------------------


class StartError(AtomrError):
    """A process did not start; nothing of it is left behind.

    Attributes:
        child: the child's id, or the process' label.
        reason: why: the exception of ``init``, or what it returned as reason.
            An exception is the ``__cause__`` as well.
    """

    def __init__(self, child: object, reason: object) -> None:
        self.child = child
        self.reason = reason
        said = reason if isinstance(reason, str) else short(reason)
        super().__init__(f"start of {child!r} failed: {said}")
        if isinstance(reason, BaseException):
            self.__cause__ = reason


class StartIgnoredError(StartError):
    """``init`` returned ``Ignore``: there is no process, and nothing is wrong."""

    def __init__(self, child: object) -> None:
        super().__init__(child, "init returned Ignore")


class InitTimeoutError(StartError):
    """``init`` did not return in time; the process was killed.

    Attributes:
        timeout_s: the bound in seconds that passed.
    """

    def __init__(self, child: object, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(child, f"init did not return within {timeout_s} s")


class AlreadyStartedError(StartError):
    """A child of that id, or a process of that name, already runs.

    Attributes:
        pid: the process that runs.
    """

    def __init__(self, child: object, pid: object) -> None:
        self.pid = pid
        super().__init__(child, f"already started as {pid!r}")


class MaxChildrenError(StartError):
    """The dynamic supervisor is full.

    Attributes:
        max_children: its bound.
    """

    def __init__(self, child: object, max_children: int) -> None:
        self.max_children = max_children
        super().__init__(child, f"the supervisor has {max_children} children already")


class ChildError(AtomrError):
    """A supervisor refused an operation on one of its children.

    Attributes:
        operation: ``"restart_child"`` and so on.
        child: the id or pid that was named.
    """

    def __init__(self, operation: str, child: object, problem: str) -> None:
        self.operation = operation
        self.child = child
        super().__init__(f"{operation}({child!r}): {problem}")


class ChildNotFoundError(ChildError):
    """The supervisor has no such child."""

    def __init__(self, operation: str, child: object) -> None:
        super().__init__(operation, child, "no such child")


class DependencyError(AtomrError):
    """Applications cannot be ordered: one is missing, doubled, or in a cycle.

    Attributes:
        names: the names at fault, in order.
    """

    def __init__(self, problem: str, names: tuple[str, ...]) -> None:
        self.names = names
        super().__init__(f"{problem}: {' -> '.join(names)}")


class ApplicationConfigError(AtomrError):
    """An application's configuration is refused; nothing was started.

    Attributes:
        application: whose.
        key: which part of it; None: all of it.
    """

    def __init__(self, application: str, key: str | None, problem: str) -> None:
        self.application = application
        self.key = key
        where = application if key is None else f"{application}.{key}"
        super().__init__(f"configuration of {where}: {problem}")


class NoApplicationError(AtomrError):
    """The code runs in no application: outside ``run_applications()``."""


class CallbackInterruptedError(AtomrError):
    """A second SIGINT broke a callback that kept the event loop from the first."""


# --- threads and event loops beside trio ----------------------------------------


class StopRequestedError(AtomrError):
    """The thread's process was asked to stop; let this leave the function.

    Attributes:
        reason: what the process is to end with; then it does.
    """

    def __init__(self, operation: str, reason: object) -> None:
        self.reason = reason
        super().__init__(f"{operation}: asked to stop: {short(reason)}")


class ThreadAbandonedError(AtomrError):
    """The thread's process or node has ended; nobody waits for the thread.

    Attributes:
        pid: the process; None when the thread belongs to none.
    """

    def __init__(self, operation: str, pid: object) -> None:
        self.pid = pid
        who = "the node" if pid is None else repr(pid)
        super().__init__(f"{operation}: {who} has ended without this thread")


class AsyncioCancelledError(CallError):
    """The asyncio task was cancelled by something in its own loop."""

    def _problem(self) -> str:
        return "the asyncio task was cancelled inside its loop"
