"""Where the last boot id is kept, and how the next one is drawn.

Written before it is used, to another file that then takes its place: a machine that
dies in between has used up an id that nobody heard of.
"""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING

from atomr.cluster.members.boot import RANDOM_BITS, next_boot

if TYPE_CHECKING:
    from pathlib import Path


def draw_boot(file: Path | None, *, last: int = 0) -> int:
    """Return the boot id of a new life, and remember it.

    Args:
        file: where; None: nowhere.
        last: of this process' life before.

    Raises:
        OSError: it cannot be read or written.
        ValueError: it holds no boot id.
    """
    draw = secrets.randbits(RANDOM_BITS)
    if file is None:
        return next_boot(time.time(), draw, last=last)
    try:
        last = max(last, _read(file))
        boot = next_boot(time.time(), draw, last=last)
        _write(file, boot)
    except OSError as error:
        raise OSError(error.errno, _problem(file, error)) from error
    return boot


def _problem(file: Path, error: OSError) -> str:
    is_missing = isinstance(error, FileNotFoundError)
    remedy = "; make its folder first" if is_missing else ""
    return f"boot_file {str(file)!r}: {error.strerror or error}{remedy}"


def _read(file: Path) -> int:
    try:
        text = file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return 0
    except UnicodeDecodeError:
        text = "bytes that are no text"
    if not text.isdecimal() or int(text) >= 2**64:
        raise ValueError(
            f"boot_file {str(file)!r} holds {text[:40]!r}: expected a number; remove"
            " the file where the clock was not set back"
        )
    return int(text)


def _write(file: Path, boot: int) -> None:
    new = file.with_name(f"{file.name}.new")
    with new.open("w", encoding="ascii") as out:
        out.write(f"{boot}\n")
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        # The new name is in the folder, not in the file.
        os.fsync(folder)
    finally:
        os.close(folder)
