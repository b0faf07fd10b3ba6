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
_OF_A_FILE = ("/", "./", "../", "~")
"""How a model's name begins that is a path."""


def say_whose(error: InferenceError, deployment: str, model: str) -> None:
    """Name the model in an error about what "this model" lacks, in its place.

    A model that is a file of the gateway's machine is not named: where it lies is
    nothing that a client needs, or should know.
    """
    if error.message.startswith(_WHOSE):
        lacks = error.message.removeprefix(_WHOSE)
        whose = "" if model.startswith(_OF_A_FILE) else f"model {model!r} of "
        error.message = f"{whose}deployment {deployment!r} {lacks}"
        error.args = (error.message,)
