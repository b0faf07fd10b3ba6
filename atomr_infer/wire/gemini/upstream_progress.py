"""How far an answer of a Gemini upstream has come.

What is the same whether it is read into chunks or passed on as it is: which
candidates have begun and ended, who serves, and the last counts.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.wire.gemini import finish
from atomr_infer.wire.gemini.upstream_answer import ABSENT
from atomr_infer.wire.gemini.usage import decode_usage

if TYPE_CHECKING:
    from atomr_infer.model.batch import FinishReason
    from atomr_infer.model.usage import Usage
    from atomr_infer.wire.gemini.upstream_answer import Candidate, Response


class Progress:
    """The candidates of one answer.

    Attributes:
        model: the model that serves, when it was said.
    """

    def __init__(self, n: int) -> None:
        """Expect ``n`` candidates at most."""
        self._n = n
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._counts = ABSENT
        self.model: str | None = None

    @property
    def complete(self) -> bool:
        """True when all that began has ended, and something did."""
        return bool(self._finished) and self._finished == self._begun

    @property
    def usage(self) -> Usage | None:
        """The last counts that were told; None: none were, or they are none."""
        return decode_usage(bytes(self._counts))

    def is_asked_for(self, response: Response) -> bool:
        """Whether all its candidates are among those that were asked for."""
        candidates = response.candidates or ()
        return all(0 <= (each.index or 0) < self._n for each in candidates)

    def note(self, response: Response) -> str | None:
        """Take what a response says about itself.

        Returns:
            Why the prompt is not answered; None: it is.
        """
        self.model = response.model_version or self.model
        if response.usage_metadata is not ABSENT:
            self._counts = response.usage_metadata
        feedback = response.prompt_feedback
        if feedback is None or not feedback.block_reason:
            return None
        if response.candidates or self._begun:
            return None
        self._begun.add(0)
        self._finished.add(0)
        return feedback.block_reason

    def begin(self, index: int) -> bool:
        """Take the next piece of a candidate; False when it has ended."""
        self._begun.add(index)
        return index not in self._finished

    def finish(self, candidate: Candidate, *, has_calls: bool) -> FinishReason | None:
        """Take a candidate's end, if this is it.

        Raises:
            InferenceError: it ended with an error.
        """
        native = candidate.finish_reason
        if native is None or not finish.is_finish(native):
            return None
        error = finish.broken(native, candidate.finish_message or "")
        if error is not None:
            raise error
        self._finished.add(candidate.index or 0)
        return finish.canonical(native, has_calls=has_calls)
