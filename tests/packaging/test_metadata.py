"""setup.cfg says what is in the checkout, and the tools check all of it."""

from __future__ import annotations

import configparser
import tomllib
from collections import Counter
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest

from atomr_infer.runtimes.contract import ENTRY_POINT_GROUP
from atomr_infer.runtimes.loader import list_runtimes, load_runtime

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def setup(root: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(root / "setup.cfg", encoding="utf-8")
    return parser


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def package_folders(root: Path) -> dict[str, str]:
    """Return every folder with an __init__.py, by package name."""
    found: dict[str, str] = {}
    for base in (root, root / "plugins"):
        for top in ("atomr", "atomr_infer", "atomr_infer_*"):
            for file in base.glob(f"{top}/**/__init__.py"):
                name = ".".join(file.parent.relative_to(base).parts)
                found[name] = str(file.parent.relative_to(root))
    return found


def test_the_package_list_is_the_folders_with_an_init(
    root: Path, setup: configparser.ConfigParser
) -> None:
    assert lines(setup["options"]["packages"]) == sorted(package_folders(root))


def test_each_plugin_is_mapped_to_its_folder(
    root: Path, setup: configparser.ConfigParser
) -> None:
    moved = {
        name: folder
        for name, folder in package_folders(root).items()
        if folder.startswith("plugins/") and "." not in name
    }

    assert moved == dict(
        line.split(" = ") for line in lines(setup["options"]["package_dir"])
    )


def test_each_plugin_has_exactly_one_entry_point(
    root: Path, setup: configparser.ConfigParser
) -> None:
    plugins = {folder.name for folder in (root / "plugins").glob("atomr_infer_*/")}
    registered = lines(setup["options.entry_points"][ENTRY_POINT_GROUP])
    modules = Counter(line.split(" = ")[1].split(".")[0] for line in registered)

    # The mock, and those that are made of others.
    assert modules.pop("atomr_infer") >= 1
    # Code of the user's has two: alone in a process, and among those that ask others.
    modules["atomr_infer_python"] -= 1
    assert modules == dict.fromkeys(plugins, 1)


@pytest.mark.parametrize("name", [entry.name for entry in list_runtimes()])
def test_each_registered_runtime_loads(name: str) -> None:
    assert load_runtime(name).name == name


def test_the_command_is_installed() -> None:
    [command] = entry_points(group="console_scripts", name="atomr-infer")

    assert callable(command.load())


def test_the_license_is_apache_2(root: Path, setup: configparser.ConfigParser) -> None:
    text = (root / "LICENSE").read_text(encoding="utf-8")

    assert setup["metadata"]["license"] == "Apache-2.0"
    assert [line.strip() for line in text.splitlines() if line.strip()][:2] == [
        "Apache License",
        "Version 2.0, January 2004",
    ]


def test_the_type_checker_and_the_import_contracts_see_every_package(
    root: Path,
) -> None:
    tools = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    roots = {name for name in package_folders(root) if "." not in name}
    with_code = {file.parts[len(root.parts)] for file in root.glob("[!.]*/**/*.py")}

    assert set(tools["importlinter"]["root_packages"]) == roots
    assert set(tools["mypy"]["files"]) == with_code - {"build", "dist"}
