"""One child, as its supervisor knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.core.child_spec import ChildKind, ChildSpec
from atomr.core.intensity import backoff_delay_s
from atomr.errors import StartError
from atomr.otp.children import ChildInfo, ChildState

if TYPE_CHECKING:
    from atomr.process.process import Process


class Child:
    """One row of a supervisor's table.

    Attributes:
        spec: its specification.
        process: None while it does not run.
        kind: what it was when it last ran.
        attempt: restarts in a row, for the backoff.
        due_at: when it is started again; None: it waits for no restart.
        restarts: how often it was started again, alone or with its siblings.
    """

    __slots__ = ("attempt", "due_at", "kind", "process", "restarts", "spec")

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.process: Process | None = None
        self.kind = spec.kind or ChildKind.WORKER
        self.attempt = 0
        self.due_at: float | None = None
        self.restarts = 0

    def runs_in(self, process: Process) -> None:
        """Note its process."""
        self.process = process
        self.kind = self.spec.kind or process.behaviour.child_kind

    @property
    def running(self) -> bool:
        """Whether it has a process that has not ended."""
        return self.process is not None and self.process.reason is None

    @property
    def state(self) -> ChildState:
        """Whether it has a process, or will get one."""
        if self.running:
            return ChildState.RUNNING
        return ChildState.STOPPED if self.due_at is None else ChildState.RESTARTING

    def info(self) -> ChildInfo:
        """Return the row as a value."""
        process = self.process if self.running else None
        pid = process.pid if process is not None else None
        return ChildInfo(self.spec.id, pid, self.kind, self.state)

    def backoff_s(self, now: float) -> float:
        """Count one more restart and return the seconds to wait before it."""
        lived_s = now - self.process.started_at if self.process is not None else 0.0
        if lived_s >= self.spec.max_backoff_s:
            self.attempt = 0
        self.attempt += 1
        return backoff_delay_s(
            self.attempt,
            backoff_s=self.spec.backoff_s,
            max_backoff_s=self.spec.max_backoff_s,
        )


def aborted_start(child: Child) -> StartError:
    """Return what the caller of a start gets when the supervisor stops."""
    return StartError(child.spec.id, "the supervisor is stopping")
