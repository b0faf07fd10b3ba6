"""How the straight way ends where it does not lead to an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError
    from atomr_infer.serving.limits.gates import Holds
    from atomr_infer.serving.replicas.replica import ReplicaState
    from atomr_infer.serving.requests.report import Report


class Failed:
    """A first attempt that failed before its client saw anything.

    It holds what the request's gates gave; who does not go on must :meth:`end` it.

    Attributes:
        replica: where.
        report: what is told of the request, up to here.
    """

    def __init__(
        self,
        error: InferenceError,
        replica: ReplicaState,
        report: Report,
        holds: Holds | None = None,
    ) -> None:
        self._error: InferenceError | None = error
        self._holds = holds
        self.replica = replica
        self.report = report

    def take_error(self) -> InferenceError:
        """Return why, once: who holds this must not hold the error that it raises."""
        error, self._error = self._error, None
        assert error is not None, "an error is raised once"
        return error

    def take_holds(self) -> Holds | None:
        """Return what the request's gates gave, once; None: they gave nothing."""
        holds, self._holds = self._holds, None
        return holds

    def end(self) -> None:
        """End what nobody has taken: the request does not go on."""
        holds = self.take_holds()
        if holds is not None:
            holds.end(self.report.used)


class OrdinaryWayError(Exception):
    """The request is to be made in the ordinary way.

    Attributes:
        failed: the attempt that was made; None: it counts as none.
    """

    def __init__(self, failed: Failed | None = None) -> None:
        super().__init__("the straight way led nowhere")
        self.failed = failed
