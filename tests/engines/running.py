"""Commands that take minutes, and files that several make at once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SAY_EVERY_S = 20.0
LONGEST_S = 3600.0
LAST_LINES = 25
SHOWN = 80


class CommandError(Exception):
    """A command failed; the text says which, and its last lines."""


def run(
    command: Sequence[str],
    doing: str,
    *,
    environ: Mapping[str, str] | None = None,
    longest_s: float = LONGEST_S,
) -> None:
    """Run a command, and say now and then that it still runs.

    Args:
        command: the program and its arguments.
        doing: what it does, for who waits.
        environ: variables beside those of this process.
        longest_s: then it is killed.

    Raises:
        CommandError: it failed, or took too long.
    """
    print(doing, flush=True)
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
        ) as process:
            status = _await(process, doing, output, until=began + longest_s)
        if status != 0:
            said = "\n  ".join(_lines(output)[-LAST_LINES:]) or "(nothing)"
            how = f"did not end in {longest_s:.0f} s" if status is None else "failed"
            raise CommandError(
                f"{doing}: this {how}:\n  {' '.join(command)}\n"
                f"Its last lines:\n  {said}"
            )


def _await(
    process: subprocess.Popen[bytes], doing: str, output: IO[bytes], *, until: float
) -> int | None:
    """Return the exit status; None: it took too long and was killed."""
    began = time.monotonic()
    while (left_s := until - time.monotonic()) > 0:
        try:
            return process.wait(min(SAY_EVERY_S, left_s))
        except subprocess.TimeoutExpired:
            last = (_lines(output) or ["..."])[-1][:SHOWN]
            print(f"{doing}: {time.monotonic() - began:.0f} s, {last}", flush=True)
    process.kill()
    return None


def _lines(output: IO[bytes]) -> list[str]:
    # By pread: the command writes at the position that both share.
    size = os.fstat(output.fileno()).st_size
    begin = max(0, size - 20_000)
    text = os.pread(output.fileno(), size - begin, begin).decode(errors="replace")
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("WARNING")]


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a file's lock, and wait for who holds it; it ends with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that makes {what}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
