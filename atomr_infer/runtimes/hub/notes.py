"""The note beside a commit's files in the cache, and which of them are still there.

It is a text with lines of three kinds::

    tiny/model.gguf             a file has come whole
    //2560000//tiny/model.gguf  and has so many bytes; earlier releases left this out
    /...                        a mark (atomr_infer.runtimes.hub.marks)

A note is no proof: who tidies a disk removes files, and a crash may leave some empty.
So a file is believed only as long as it is there in the size that was noted.

All functions block.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NAME = ".whole"

_SIZE = re.compile(r"//(?P<size>\d{1,20})//(?P<name>.+)")


@attrs.frozen
class Note:
    """What is noted of a commit.

    Attributes:
        files: the paths of those that have come whole.
        marks: what has all its files.
        sizes: in bytes, by path; those that earlier releases noted have none.
    """

    files: frozenset[str] = frozenset()
    marks: frozenset[str] = frozenset()
    sizes: Mapping[str, int] = attrs.field(factory=dict)

    def there(self, folder: Path) -> frozenset[str]:
        """Return the files that are still there, whole.

        Raises:
            OSError: nobody may look.
        """
        return frozenset(
            name for name in self.files if is_whole(folder / name, self.sizes.get(name))
        )


def read_note(folder: Path) -> Note:
    """Return what is noted of the commit in a folder; of one that is new, nothing.

    Raises:
        OSError: it cannot be read.
    """
    note = folder / NAME
    if not note.exists():
        return Note()
    # Not at other ends of lines than that: names may hold them.  A damaged note says
    # less, and what it does not say is looked up at the hub.
    lines = note.read_text("utf-8", errors="replace").split("\n")
    lines = [line for line in lines if line and "\0" not in line]
    sized = [match for line in lines if (match := _SIZE.fullmatch(line))]
    return Note(
        files=frozenset(line for line in lines if not line.startswith("/")),
        marks=frozenset(
            line for line in lines if line.startswith("/") and not _SIZE.fullmatch(line)
        ),
        sizes={match["name"]: int(match["size"]) for match in sized},
    )


def write_note(folder: Path, note: Note) -> None:
    """Put a note in the place of the one that is there.

    Raises:
        OSError: it cannot be written.
    """
    sizes = {f"//{size}//{name}" for name, size in note.sizes.items()}
    replace(folder / NAME, sorted(note.files | note.marks | sizes))


def replace(file: Path, lines: Iterable[str]) -> None:
    """Write a small file whole, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    fresh = file.with_name(f"{file.name}.partial")
    fresh.write_text("\n".join(lines), "utf-8")
    settle(fresh, file)


def check_name(path: str, repo: str) -> None:
    """Refuse a file of a hub's model that cannot lie, or be noted, in the cache.

    Raises:
        EngineStartError: it is called as what the cache has beside the files, or has a
            line break in its name.
    """
    first = path.partition("/")[0]
    if first in (NAME, f"{NAME}.partial"):
        problem = f"the cache keeps its notes under the name {first!r}"
    elif "\n" in path or "\r" in path:
        problem = "a name with a line break cannot be noted in the cache"
    else:
        return
    raise EngineStartError(
        f"{repo!r} has a file {path!r}, which an engine would need, and {problem}; "
        "fetch the model in another way, and name its directory"
    )


def settle(fresh: Path, file: Path) -> None:
    """Give a file its name, once its content is on the disk.

    Without that a crash may leave the name with nothing, or a part, behind it.

    Raises:
        OSError: the disk does not take it.
    """
    with fresh.open("rb+") as content:
        os.fsync(content.fileno())
    fresh.rename(file)


def is_whole(path: Path, size: int | None) -> bool:
    """Whether a file is there, with so many bytes; None: with any at all.

    Raises:
        OSError: nobody may look.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    return found.st_size > 0 if size is None else found.st_size == size
