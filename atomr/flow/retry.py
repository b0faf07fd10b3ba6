"""When a function that failed is called again, and after how long.

Pure.
"""

from __future__ import annotations

import attrs

from atomr.core.checks import check_count, check_seconds
from atomr.core.intensity import backoff_delay_s


@attrs.frozen
class Retry:
    """How often an event is tried, and how long the waits are.

    Attributes:
        attempts: calls in all, at least 1.
        backoff_s: the wait before the second call; doubles with each one.
        max_backoff_s: the longest wait.
        on: the errors after which another try is worth while.

    Raises:
        TypeError: one of them is of another type.
        ValueError: one of them is too small.
    """

    attempts: int = 3
    backoff_s: float = 0.1
    max_backoff_s: float = 10.0
    on: tuple[type[Exception], ...] = (Exception,)

    def __attrs_post_init__(self) -> None:
        check_count("attempts", self.attempts, least=1)
        check_seconds("backoff_s", self.backoff_s)
        check_seconds("max_backoff_s", self.max_backoff_s)

    def wait_s(self, error: Exception, *, failed: int) -> float | None:
        """Return how long to wait before the next call; None: there is none.

        Args:
            error: why the last call failed.
            failed: calls so far.

        >>> retry = Retry(attempts=3, backoff_s=1.0, on=(OSError,))
        >>> [retry.wait_s(OSError(), failed=n) for n in (1, 2, 3)]
        [1.0, 2.0, None]
        >>> retry.wait_s(ValueError(), failed=1)
        """
        if failed >= self.attempts or not isinstance(error, self.on):
            return None
        return backoff_delay_s(
            failed, backoff_s=self.backoff_s, max_backoff_s=self.max_backoff_s
        )


NEVER = Retry(attempts=1)
"""One call, whatever comes of it."""
