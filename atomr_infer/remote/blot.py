"""Keep our key out of the errors that an upstream causes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from atomr_infer.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.model.secret import Secret


@contextmanager
def without_secret(secret: Secret | None) -> Iterator[None]:
    """Blot our key out of every error that leaves the block.

    An upstream can repeat the key wherever its bytes go.  Message, code and
    param are blotted; a cause that shows the key is cut off, as a log would
    print it.
    """
    try:
        yield
    except InferenceError as error:
        blot(error, secret)
        raise


def blot(error: InferenceError, secret: Secret | None) -> None:
    """Blot our key out of one error."""
    if secret is None:
        return
    error.message = secret.blot(error.message)
    error.args = (error.message,)
    if error.code is not None:
        error.code = secret.blot(error.code)
    if error.param is not None:
        error.param = secret.blot(error.param)
    for cause in _causes(error):
        shown = f"{cause} {cause!r}"
        if secret.blot(shown) != shown:
            error.__cause__ = error.__context__ = None
            return


def _causes(error: BaseException) -> Iterator[BaseException]:
    # Each once: an error's cause is mostly its context, too, and looking at
    # both would double with every link of the chain.
    seen = {id(error)}
    pending = [error]
    while pending:
        each = pending.pop()
        for cause in (each.__cause__, each.__context__):
            if cause is not None and id(cause) not in seen:
                seen.add(id(cause))
                pending.append(cause)
                yield cause
