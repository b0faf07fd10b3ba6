"""Errors about callbacks, starts, supervisors and applications."""

from __future__ import annotations

from atomr.errors.base import AtomrError, short

# --- what callbacks return --------------------------------------------------------


class BadReturnError(AtomrError):
    """A callback returned something that it must not.

    Attributes:
        callback: its name.
        value: what it returned.
    """

    def __init__(self, callback: str, value: object, expected: str) -> None:
        self.callback = callback
        self.value = value
        super().__init__(f"{callback} returned {value!r}, expected {expected}")


class BadActionError(AtomrError):
    """A state returned something that is no action, or is none there.

    Attributes:
        action: what it returned.
        event: what it was called with.
    """

    def __init__(self, action: object, event: object, problem: str) -> None:
        self.action = action
        self.event = event
        super().__init__(f"action {short(action)} after {short(event)}: {problem}")


class InitStoppedError(AtomrError):
    """``init`` returned ``Stop``.

    Attributes:
        reason: the reason it gave.
    """

    def __init__(self, reason: object) -> None:
        self.reason = reason
        super().__init__(f"init returned Stop({reason!r})")


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
