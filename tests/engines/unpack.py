"""A directory in Hugging Face's layout out of an archive: ``SOURCE FOLDER``."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path


def main(source: Path, folder: Path) -> None:
    """Write its files."""
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
