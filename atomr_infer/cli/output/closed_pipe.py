"""Standard streams whose reader has left, as ``head`` does.

Where it has left standard output, the command ends quietly.  Python ignores SIGPIPE, so
that a write to such a pipe raises, and it writes what is left once more when it ends,
which fails as well.  A command ends with the status that a shell gives a program that
the signal has ended, so that ``set -o pipefail`` and ``PIPESTATUS`` show what they show
of ``git log`` or ``ls``.  It is not ended by the signal itself, because blocks that run
are left in order.  A server's clients have not left with who reads its banner, so
``serve`` goes on (:mod:`atomr_infer.cli.output.banner`).

What cannot be written to standard error is dropped: nobody is left to be told, and what
the program does, and its exit status, are not for who reads that.  It is dropped below
all that writes, which are notices, logs, bars of models that load, click and rich: each
would end a gateway, or change a status, when its write raises.

Any other pipe that breaks is a mistake, and not quiet.
"""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer

STATUS = 128 + 13
"""The exit status; 13 is SIGPIPE."""


class PipedGroup(click.Group):
    """Commands that end quietly when nobody reads their standard output any more.

    It is met here and not around ``main``, where click itself ends with 1, as for a
    command that has failed.
    """

    def main(self, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - click's
        """Run the command line, whoever reads standard error."""
        _write_stderr_while_it_is_read()
        return super().main(*arguments, **more)

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
    except BrokenPipeError as error:
        if not _is_stdout_left():
            # Not as it is: click ends with 1 for any closed pipe, without a word.
            raise RuntimeError(
                f"a pipe has closed, and it is not standard output: {error}"
            ) from error
        silence_stdout()
        sys.exit(STATUS)


def _is_stdout_left() -> bool:
    asked = select.poll()
    asked.register(sys.stdout.fileno(), 0)  # that nobody reads is always told
    gone = select.POLLERR | select.POLLHUP
    return any(events & gone for _, events in asked.poll(0))


def _write_stderr_while_it_is_read() -> None:
    written = sys.stderr
    # Not what a caller has put in its place, nor a stream that is not there.
    if written is not sys.__stderr__ or not isinstance(written, io.TextIOWrapper):
        return
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Droppable(written.fileno(), "wb", closefd=False)),
        encoding=written.encoding,
        errors=written.errors,
        line_buffering=written.line_buffering,
        write_through=written.write_through,
    )


class _Droppable(io.FileIO):
    """A file to which nothing is written that cannot be."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of it, or drop it all: the pipe is closed, the disk full."""
        try:
            written = super().write(data)
        except OSError:
            written = None
        # None: another program has made the terminal one that never blocks.
        return memoryview(data).nbytes if written is None else written
