"""What the page on architecture names is there, and its tree is the real one."""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import reduce
from pathlib import Path

import pytest
import trio

from atomr.otp import supervision_tree
from atomr.process import current_node
from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
NAMES = sorted(
    set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))
)
FILES = [
    name
    for name in NAMES
    if "/" in name and name.split("/")[0] in ("atomr", "atomr_infer", "plugins")
]
DOTTED = [
    name
    for name in NAMES
    if re.fullmatch(r"[a-z_]+(\.\w+)+", name) and not re.search(r"\.(py|toml)$", name)
]


def is_there(dotted: str) -> bool:
    """Whether some module of that (last) name has the attribute."""
    stem, *attributes = dotted.split(".")
    found = [
        module.name
        for package in ("atomr", "atomr_infer")
        for module in pkgutil.walk_packages(
            importlib.import_module(package).__path__, f"{package}."
        )
        if module.name.rpartition(".")[2] == stem
    ]
    for name in found:
        try:
            reduce(getattr, attributes, importlib.import_module(name))
        except AttributeError:
            continue
        return True
    return False


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_the_page_names_is_there(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("name", DOTTED)
def test_a_function_that_the_page_names_is_there(name: str) -> None:
    assert is_there(name)


def test_a_function_that_is_not_there_is_noticed() -> None:
    assert not is_there("request.run_requests")
    assert len(FILES) > 20
    assert len(DOTTED) > 15


async def test_the_tree_on_the_page_is_the_real_one() -> None:
    deployment = Deployment(name="tiny", runtime="mock", options={"hang_after": 1})
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(deployment)
        await cluster.serve("127.0.0.1:0")
        async with cluster.stream("tiny", "one two") as chunks:
            await anext(chunks)
            await trio.testing.wait_all_tasks_blocked()
            tree = supervision_tree(current_node())
            assert tree is not None
            lines = [plain(line) for line in tree.as_lines()]

    [shown] = re.findall(r"```tree\n(.*?)```", PAGE, re.DOTALL)
    assert lines == shown.splitlines()


def plain(line: str) -> str:
    """Drop what differs from run to run."""
    line = re.sub(r" <Pid \d+ [^>]*>", "", line)
    line = re.sub(r"^\S+ \(running\) Node$", "NODE (running) Node", line)
    line = re.sub(r"http://[\d.]+:\d+", "http://HOST:PORT", line)
    return re.sub(r"[0-9a-f]{24}", "REQUEST-ID", line)


def test_the_layers_on_the_page_are_those_of_the_contracts() -> None:
    contracts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = {
        container: re.findall(r'"([^"]+)"', found)
        for container, found in re.findall(
            r"^containers = \[\"(\w+)\"\].*?^layers = \[(.*?)\]",
            contracts,
            re.DOTALL | re.MULTILINE,
        )
    }
    atomr, atomr_infer = lists["atomr"], lists["atomr_infer"]

    assert " -> ".join(atomr) in PAGE
    # The version is no layer that anybody thinks of.
    assert " -> ".join(atomr_infer).removesuffix(" -> _version") in PAGE
