"""What conformance checks share: the case they are given and the error they raise.

Pure but for the counter behind request ids.
"""

from __future__ import annotations

from itertools import count

import attrs

from atomr.errors import AtomrError
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling

# Enough for a stream to be under way, little enough for a slow engine.
BOUNDED = Sampling(max_tokens=32)

_request_numbers = count(1)


class ConformanceError(AtomrError):
    """A plugin or runner breaks the contract.

    Attributes:
        rule: the number of the rule in the contract's list; 0: what is asked
            of the plugin itself.
        problem: what it does.
    """

    def __init__(self, rule: int, problem: str) -> None:
        self.rule = rule
        self.problem = problem
        where = f"rule {rule}" if rule else "plugin"
        super().__init__(f"{where}: {problem}")


@attrs.frozen(kw_only=True)
class ConformanceCase:
    """What a check needs to know about the model behind a runner.

    Attributes:
        model: the model name that requests carry.
        prompt: a user message whose answer is longer than 32 tokens when
            nothing bounds it, and has several different words.
        answer_timeout_s: longest time for one bounded answer, in seconds.
        leave_timeout_s: longest time that leaving a block may take.
    """

    model: str
    prompt: str = "Count from one to one hundred. Write every number as a word."
    answer_timeout_s: float = 60.0
    leave_timeout_s: float = 5.0

    def ask(self, sampling: Sampling = BOUNDED) -> ExecuteBatch:
        """Return a request for an answer to the prompt, of 32 tokens at most."""
        return ExecuteBatch(
            request_id=f"conformance-{next(_request_numbers)}",
            model=self.model,
            messages=(Message(Role.USER, self.prompt),),
            sampling=sampling,
        )
