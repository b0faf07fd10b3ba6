"""An error that is kept, and raised more than once.

Raising adds to an error's traceback, and the traceback holds on to the frames
and what is in them: one object raised for each request would grow without end.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.errors import decode, encode

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError


def fresh(error: InferenceError) -> InferenceError:
    """Return an equal error with the same cause, and no traceback."""
    copy = decode(encode(error))
    copy.__cause__ = error.__cause__
    return copy


_WHOSE = "this model "
"""How an error begins that is made where the deployment is not known."""


def say_whose(error: InferenceError, deployment: str, model: str) -> None:
    """Name the model in an error about what "this model" lacks, in its place."""
    if error.message.startswith(_WHOSE):
        lacks = error.message.removeprefix(_WHOSE)
        error.message = f"model {model!r} of deployment {deployment!r} {lacks}"
        error.args = (error.message,)
