"""Importing the roots is cheap: no event loop, no web server, no engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIST_MODULES = """\
import importlib, sys
importlib.import_module(sys.argv[1])
print("\\n".join({name.partition(".")[0] for name in sys.modules}))
"""
SERVERS = {"hypercorn", "h11", "h2", "wsproto"}
ENGINES = {"mistralrs", "gguf", "numpy", "onnxruntime", "tokenizers"}


def loaded_by(module: str) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", LIST_MODULES, module],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ran.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "atomr",
        "atomr.core",
        "atomr.crdt",
        "atomr.gossip.replication",
        "atomr_infer",
        "atomr_infer.model.deployment",
        "atomr_infer.policy",
        "atomr_infer.wire",
        "atomr_infer.runtimes.loader",
        "atomr_infer.config.load",
    ],
)
def test_it_loads_no_event_loop_and_no_server(module: str) -> None:
    assert loaded_by(module) & ({"trio", "asyncio"} | SERVERS | ENGINES) == set()


def test_the_facade_loads_no_server_and_no_engine() -> None:
    loaded = loaded_by("atomr_infer.cluster")

    assert "trio" in loaded
    # The links between nodes speak HTTP/2.
    assert loaded & (SERVERS - {"h2"} | ENGINES) == set()


@pytest.mark.parametrize("module", ["atomr.otp", "atomr.interop", "atomr.process"])
def test_atomr_alone_loads_what_the_readme_names_and_nothing_of_inference(
    module: str,
) -> None:
    base = {"attr", "attrs", "click", "msgspec", "outcome", "rich", "trio"}
    loaded = loaded_by(module) & (base | SERVERS | ENGINES | {"atomr_infer"})

    assert loaded == {"attr", "attrs", "outcome", "trio"}
