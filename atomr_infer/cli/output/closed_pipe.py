"""Standard output whose reader has left, as ``head`` does: the command ends quietly.

Python ignores SIGPIPE, so that a write to such a pipe raises, and it writes what is
left once more when it ends, which fails as well.  A command ends with the status that
a shell gives a program that the signal has ended, so that ``set -o pipefail`` and
``PIPESTATUS`` show what they show of ``git log`` or ``ls``.  It is not ended by the
signal itself, because blocks that run are left in order.

A server's clients have not left with who reads its banner, so ``serve`` goes on
(:mod:`atomr_infer.cli.output.banner`).
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

STATUS = 128 + 13
"""The exit status; 13 is SIGPIPE."""


class PipedGroup(click.Group):
    """Commands that end quietly when nobody reads their standard output any more.

    It is met here and not around ``main``, where click itself ends with 1, as for a
    command that has failed.
    """

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:  # noqa: ANN401 - click's
        """Read the arguments; ``--help`` and ``--version`` print meanwhile."""
        with _left_quietly():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that is meant."""
        with _left_quietly():
            return super().invoke(ctx)


def silence_stdout() -> None:
    """Let the interpreter's own flush at the end find somewhere to go."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextmanager
def _left_quietly() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        silence_stdout()
        sys.exit(STATUS)
