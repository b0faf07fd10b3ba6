"""Distributions made on the spot, for tests of plugin discovery."""

from __future__ import annotations

from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@attrs.frozen
class Site:
    """A folder that distributions are installed into."""

    folder: Path

    def add(
        self, name: str, *, entry_points: str = "", extras: tuple[str, ...] = ()
    ) -> None:
        """Install a distribution that registers ``entry_points``, a line each."""
        info = self.folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        provided = "".join(f"Provides-Extra: {extra}\n" for extra in extras)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{provided}"
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(
            f"[atomr_infer.runtimes]\n{entry_points}\n"
        )

    def installed(self) -> Iterable[Distribution]:
        """Return what is installed, as the loader asks for it."""
        return distributions(path=[str(self.folder)])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return an empty site folder."""
    return Site(tmp_path)


@pytest.fixture
def plugin_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], None]:
    """Return a function that writes an importable module."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def write(name: str, source: str) -> None:
        (folder / f"{name}.py").write_text(source)

    return write
