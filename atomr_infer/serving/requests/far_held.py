"""A permit of another node, as an attempt here holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.serving.replicas.engine_life import EngineLife

if TYPE_CHECKING:
    from atomr_infer.runtimes.contract import ModelRunner
    from atomr_infer.serving.requests.delivery import Attempt
    from atomr_infer.serving.requests.far_attempt import FarCall


class FarLease:
    """What a permit of another node lets one run.

    Attributes:
        runner: the call itself.
        life: ends never: a call that is lost says so itself.
        model: None: its node knows.
    """

    model = None

    def __init__(self, runner: ModelRunner) -> None:
        self.runner = runner
        self.life = EngineLife()


class FarHeld:
    """A permit of another node, with the stream that its answer comes on.

    Attributes:
        lease: what is run with it.
        ignored: members of the request that have no effect over there.
        holds: None: its own node keeps its deployment's gates.
    """

    holds = None

    def __init__(self, call: FarCall, tokens: int, turn: int) -> None:
        self.lease = FarLease(call)
        self.ignored: tuple[str, ...] = call.ignored
        self._attempt: Attempt | None = None
        self._call = call
        self._tokens = tokens
        self._turn = turn

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that is made with it; None: none was begun."""
        return self._attempt

    @attempt.setter
    def attempt(self, attempt: Attempt) -> None:
        attempt.composed = self._call.composed
        self._attempt = attempt

    def alive(self) -> None:
        """Nothing to do: its own node keeps the breaker."""

    def report(self, outcome: object) -> None:
        """Nothing to do: its own node keeps the breaker."""

    def release(self, ended: object) -> None:
        """Let go of the stream; a call that is not over ends over there, too."""
        self._call.close()
        self._call.replica.back(self._turn, self._tokens)
