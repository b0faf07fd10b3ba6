"""One Ray cluster of one node for all tests here: it takes seconds to start."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engines.environments import how_to_make, interpreter_of

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SAYS = "ADDRESS "
STARTS_IN_S = 100.0


@pytest.fixture(scope="session")
def ray_python() -> str:
    """The interpreter that has Ray, or a reason to skip."""
    python = interpreter_of("ray")
    if python is None:
        pytest.skip(how_to_make("ray"))
    return str(python)


@pytest.fixture(scope="session")
def start_ray(ray_python: str) -> Iterator[RayCluster]:
    """A cluster, whose address is asked for."""
    cluster = RayCluster(ray_python)
    yield cluster
    cluster.close()


@pytest.fixture
def ray_address(start_ray: RayCluster, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a cluster that runs; the relay knows its folder's token."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    return start_ray.address


@pytest.fixture
def ray_head(start_ray: RayCluster) -> int:
    """The process that started the cluster's."""
    return start_ray.pid


class RayCluster:
    """A process that is a cluster's head, with all of its processes."""

    def __init__(self, python: str) -> None:
        # Ray's sockets are in it, whose paths may have 107 bytes.
        self._folder = tempfile.mkdtemp(prefix="ray")
        environ = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            # Engines find the tests' plugin by it, as they would a user's own.
            "PYTHONPATH": str(HERE.parent),
        }
        self._process = subprocess.Popen(
            [python, str(HERE / "head.py"), self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            text=True,
        )
        self.pid = self._process.pid
        self.address = self._read_address()

    def _read_address(self) -> str:
        assert self._process.stdout is not None
        said = []
        bound = threading.Timer(STARTS_IN_S, self._process.kill)
        bound.start()
        try:
            for line in self._process.stdout:
                if line.startswith(SAYS):
                    return line.removeprefix(SAYS).strip()
                said.append(line)
        finally:
            bound.cancel()
        raise AssertionError("".join(said))

    def close(self) -> None:
        """End it, and all of its processes."""
        self._process.communicate(timeout=60)
        shutil.rmtree(self._folder, ignore_errors=True)
