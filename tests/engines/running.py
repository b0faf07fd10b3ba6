"""Commands that take minutes, and files that several make at once."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SAY_EVERY_S = 20.0
LOOK_EVERY_S = 0.1
END_WITHIN_S = 5.0
LONGEST_S = 3600.0
LAST_LINES = 25
SHOWN = 80
NEVER = threading.Event()
"""What tells a thread to stop, where nothing does."""


class CommandError(Exception):
    """A command failed; the text says which, and its last lines."""


class StoppedError(Exception):
    """Who asked for it wants it no more."""


def run(
    command: Sequence[str],
    doing: str,
    *,
    environ: Mapping[str, str] | None = None,
    longest_s: float = LONGEST_S,
    stop: threading.Event = NEVER,
) -> None:
    """Run a command, and say now and then that it still runs.

    Args:
        command: the program and its arguments.
        doing: what it does, for who waits.
        environ: variables beside those of this process.
        longest_s: seconds; then it is killed, and what it started.
        stop: when it is set, the command is interrupted, and what it started.

    Raises:
        CommandError: it failed, or took too long.
        StoppedError: ``stop`` was set; the command has ended.
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
            # Ended with all that it starts: pip dies alone, and its compilers go on.
            process_group=0,
        ) as process:
            try:
                status = _await(process, doing, output, began + longest_s, stop)
            except BaseException:
                # It does not hear the terminal's Ctrl-C, and would be waited for.
                _interrupt(process)
                raise
        if status != 0:
            said = "\n  ".join(_lines(output)[-LAST_LINES:]) or "(nothing)"
            how = f"did not end in {longest_s:.0f} s" if status is None else "failed"
            raise CommandError(
                f"{doing}: this {how}:\n  {' '.join(command)}\n"
                f"Its last lines:\n  {said}"
            )


def _await(
    process: subprocess.Popen[bytes],
    doing: str,
    output: IO[bytes],
    until: float,
    stop: threading.Event,
) -> int | None:
    """Return the exit status; None: it took too long and was killed."""
    began = time.monotonic()
    said = began
    while (now := time.monotonic()) < until:
        if stop.is_set():
            raise StoppedError
        try:
            return process.wait(min(LOOK_EVERY_S, until - now))
        except subprocess.TimeoutExpired:
            if now - said >= SAY_EVERY_S:
                said = now
                last = (_lines(output) or ["..."])[-1][:SHOWN]
                print(f"{doing}: {now - began:.0f} s, {last}", flush=True)
    _kill(process)
    return None


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """End it as Ctrl-C does, so that it tidies up; kill what goes on."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_WITHIN_S)
    _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lines(output: IO[bytes]) -> list[str]:
    # By pread: the command writes at the position that both share.
    size = os.fstat(output.fileno()).st_size
    begin = max(0, size - 20_000)
    text = os.pread(output.fileno(), size - begin, begin).decode(errors="replace")
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("WARNING")]


@contextmanager
def locked(path: Path, what: str, *, stop: threading.Event = NEVER) -> Iterator[None]:
    """Hold a file's lock, and wait for who holds it; it ends with its process.

    Args:
        path: the file; it is made, with its folders.
        what: what is made under it, for who waits.
        stop: when it is set, the lock is waited for no longer.

    Raises:
        StoppedError: ``stop`` was set before the lock was free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        if not _is_free(lock):
            print(f"waiting for another process that makes {what}", flush=True)
            # Not in flock itself: no signal ends that in a thread.
            while not _is_free(lock):
                if stop.wait(LOOK_EVERY_S):
                    raise StoppedError
        yield


def _is_free(lock: IO[str]) -> bool:
    """Whether the lock was free, and is held now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
