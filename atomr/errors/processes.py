"""Errors about processes, names and nodes; and about tasks."""

from __future__ import annotations

from atomr.errors.base import AtomrError, short


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
