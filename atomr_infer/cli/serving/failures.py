"""What could not be started, while ``serve`` loads.

One engine that does not start is no reason to turn away those who ask for another
model: it is told, and tried again.  A ``serve`` of which nothing serves ends, so that
its mistake is seen, and so does one that is asked to be strict.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from atomr_infer.cli.output.banner import print_notice
from atomr_infer.errors import decode, encode
from atomr_infer.serving.placing.seating import NoRoomError
from atomr_infer.serving.replicas.key_check import KEY_REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.cli.plan import ServePlan
    from atomr_infer.errors import InferenceError


class Failures:
    """Which of a plan's deployments could not be started."""

    def __init__(self, plan: ServePlan) -> None:
        self._all = {deployment.name for deployment in plan.deployments}
        self._is_strict = plan.strict
        self._failed: set[str] = set()
        self._of_keys: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._failed

    def note(self, name: str, error: InferenceError) -> None:
        """Tell the operator of one.

        Raises:
            InferenceError: the same: it is the last that could have served, or none
                may fail.  A key that is refused counts for the strict alone: another
                one may be there in the next second.
        """
        self._failed.add(name)
        if error.code == KEY_REFUSED:
            self._of_keys.add(name)
        if self._is_strict and error.code == KEY_REFUSED:
            raise _with_remedy(error)
        if self._is_strict or self._failed - self._of_keys == self._all:
            raise error
        print_notice(f"{error}; it is tried again as long as another one may serve")


@contextmanager
def said_with_line(plan: ServePlan) -> Iterator[None]:
    """Have a deployment for which there are too few GPUs said with its line.

    Raises:
        NoRoomError: the same, with file and line where the plan is from a file.
    """
    try:
        yield
    except NoRoomError as error:
        if plan.origin is not None and error.path is None:
            names = [deployment.name for deployment in plan.deployments]
            where = ("deployment", names.index(error.deployment), "placement")
            error.path = plan.origin.path
            error.line = plan.origin.positions.line(where)
        raise


def _with_remedy(error: InferenceError) -> InferenceError:
    record = encode(error)
    message = (
        f"{record.message}; put one there that it takes, or start without --strict: "
        "what else there is serves then, and the right key is taken when it comes"
    )
    return decode(attrs.evolve(record, message=message))
