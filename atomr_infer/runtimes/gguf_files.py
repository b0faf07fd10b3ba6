"""Which ``.gguf`` files are one model, and which of several models is taken.

A large model is split: ``NAME-00001-of-00003.gguf`` and so on, as llama.cpp's
``gguf-split`` calls them.  An engine is given the first part and finds the others
beside it.  A repository for GGUF often holds one model in many quantizations.

Pure but for :func:`first_part`, which looks whether files are there.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

SUFFIX = ".gguf"

USUAL_QUANTIZATION = "Q4_K_M"
"""What is taken of several where none is named, as llama.cpp's own programs do."""

_PART = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{5})(?P<end>-of-(?P<count>\d{5})\.gguf)",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
_MAX_PARTS = 2000
"""More than any model has: the largest have some hundreds."""

_MAX_NAMED = 5
"""Of parts that are missing."""

_PROJECTOR = "mmproj"
"""In the name of a file for pictures, which is no model."""


def parts_of(name: str) -> tuple[str, ...]:
    """Return the files of the model of which one is called so, the first first.

    Args:
        name: a name or a path, which keeps its folder.

    Raises:
        ConfigError: it says that there are more than any model has.

    >>> parts_of("q4/m-00002-of-00002.gguf")
    ('q4/m-00001-of-00002.gguf', 'q4/m-00002-of-00002.gguf')
    >>> parts_of("m.gguf")
    ('m.gguf',)
    """
    match = _part(name)
    if match is None:
        return (name,)
    count = int(match["count"])
    if count > _MAX_PARTS:
        raise ConfigError(
            f"{name!r} says that it is one of {count} parts, and a model of more than "
            f"{_MAX_PARTS} is not read; join them: llama-gguf-split --merge"
        )
    stem, end = match["stem"], match["end"]
    return tuple(f"{stem}-{number:05}{end}" for number in range(1, count + 1))


def _part(name: str) -> re.Match[str] | None:
    match = _PART.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]):
        return None
    return match


def _first(name: str) -> str:
    match = _part(name)
    return name if match is None else f"{match['stem']}-00001{match['end']}"


def some_of(missing: Sequence[str]) -> str:
    """Return the names of parts that are missing, as a list for people.

    >>> some_of(["a", "b"])
    'a, b'
    >>> some_of(["a"] * 9)
    'a, a, a, a, a and 4 more'
    """
    named = ", ".join(islice(missing, _MAX_NAMED))
    more = len(missing) - _MAX_NAMED
    return f"{named} and {more} more" if more > 0 else named


def part_paths(file: Path) -> tuple[Path, ...]:
    """Return where the parts of a model are of which ``file`` is one, or all.

    Raises:
        ConfigError: its name says that there are more than any model has.
    """
    return tuple(file.with_name(name) for name in parts_of(file.name))


def first_part(file: Path) -> Path:
    """Return the file that an engine is given of a model of which ``file`` is one part.

    Raises:
        ConfigError: it is not there, or another part is not, or its name says that
            there are more than any model has.
    """
    parts = part_paths(file)
    gone = [part for part in parts if not part.is_file()]
    if file in gone:
        raise ConfigError(f"there is no model file {str(file)!r}")
    if gone:
        names = some_of([part.name for part in gone])
        raise ConfigError(
            f"the model file {str(file)!r} is one of {len(parts)} parts, and beside it "
            f"there is no {names}"
        )
    return parts[0]


def usual_gguf(paths: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """Return the model that is taken of a folder's, and the others: their first parts.

    Args:
        paths: of all files.

    Raises:
        ConfigError: there is none; or there are several, and not exactly one of the
            usual quantization.

    >>> usual_gguf(["m-Q8_0.gguf", "m-Q4_K_M.gguf", "mmproj-F16.gguf"])
    ('m-Q4_K_M.gguf', ('m-Q8_0.gguf',))
    """
    found = sorted({_first(path) for path in paths if _is_model(path)})
    usual = [path for path in found if USUAL_QUANTIZATION.lower() in path.lower()]
    taken = found if len(found) == 1 else usual
    if len(taken) != 1:
        several = "several" if usual else "none"
        raise ConfigError(
            f"there are several {SUFFIX} files, and {several} of them in "
            f"{USUAL_QUANTIZATION}; name one behind the model's name: "
            f"{', '.join(found)}"
            if found
            else f"there is no {SUFFIX} file with a model"
        )
    return taken[0], tuple(path for path in found if path != taken[0])


def _is_model(path: str) -> bool:
    name = PurePosixPath(path).name.lower()
    return name.endswith(SUFFIX) and _PROJECTOR not in name
