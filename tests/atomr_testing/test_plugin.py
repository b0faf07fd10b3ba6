"""The pytest plugin, as a project uses it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from atomr.testing.pytest_plugin import _seeds

ROOT = Path(__file__).parents[2]

TESTS = """
import pytest
import trio

from atomr.otp import GenServer, cast
from atomr.process import send, send_after
from atomr.testing import advance


class Fragile(GenServer):
    def handle_cast(self, message):
        raise ValueError(message)


async def test_node_probe_and_clock(node, probe, virtual_clock):
    send_after(3600, probe.pid, "hello")
    await advance(3600)
    assert await probe.expect(str) == "hello"
    assert probe.pid.number in node.node.processes


async def test_a_crash_fails(node):
    cast(await node.start_supervised(Fragile), "bad luck")
    await trio.sleep_forever()


async def test_what_is_left_fails(node):
    send_after(3600, "nobody", "x")


async def test_a_probe_shows_what_came(probe):
    send(probe.pid, "a")
    await probe.expect("b")


@pytest.mark.seeds(2)
async def test_seeds():
    pass


@pytest.mark.seeds(n=1)
async def test_by_keyword():
    pass


@pytest.mark.seeds(3, 17)
async def test_listed(schedule):
    assert schedule == 3


def test_no_seed():
    pass
"""


def pytest_in(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        [*command, str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout + done.stderr


def project(folder: Path) -> None:
    page = (ROOT / "docs/how-to/test-processes.md").read_text()
    [on_the_page] = re.findall(r"^```py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (folder / "conftest.py").write_text(
        'pytest_plugins = ["atomr.testing.pytest_plugin"]\n'
    )
    (folder / "test_it.py").write_text(TESTS)
    (folder / "test_on_the_page.py").write_text(on_the_page)
    (folder / "pytest.ini").write_text(
        f"[pytest]\ntrio_mode = true\npythonpath = {ROOT}\n"
        "addopts = --strict-markers\nfilterwarnings = error\n"
    )


def test_its_fixtures_and_marker_work_and_failures_say_why(tmp_path: Path) -> None:
    project(tmp_path)

    output = pytest_in(tmp_path, "-rA", "--tb=short", "--seeds=3")
    summary = output.rpartition("short test summary info")[2]

    results = re.findall(r"^(PASSED|FAILED) (\S+)::(\S+)", summary, re.MULTILINE)
    ours = [(how, test) for how, file, test in results if file == "test_it.py"]
    # Fifty seeds and one test without.
    page = [how for how, file, _ in results if file == "test_on_the_page.py"]

    assert page == ["PASSED"] * 51
    assert sorted(ours) == [
        ("FAILED", "test_a_crash_fails"),
        ("FAILED", "test_a_probe_shows_what_came"),
        ("FAILED", "test_listed[seed=17]"),
        ("FAILED", "test_what_is_left_fails"),
        ("PASSED", "test_by_keyword[seed=0]"),
        ("PASSED", "test_by_keyword[seed=1]"),
        ("PASSED", "test_by_keyword[seed=2]"),
        ("PASSED", "test_listed[seed=3]"),
        ("PASSED", "test_no_seed"),
        ("PASSED", "test_node_probe_and_clock"),
        ("PASSED", "test_seeds[seed=0]"),
        ("PASSED", "test_seeds[seed=1]"),
        ("PASSED", "test_seeds[seed=2]"),
    ]
    assert "crashed: ValueError('bad luck')" in output
    assert "raise ValueError(message)" in output
    assert "'b' next, but got 'a'" in output
    assert "armed at" in output


def test_a_marker_that_would_run_nothing_or_not_what_it_says_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"seeds\(0\): expected at least 1"):
        _seeds(5, 0)
    with pytest.raises(TypeError):
        _seeds(5, seeds=3)  # type: ignore[call-arg]
    assert _seeds(0, 0, 7) == [0, 7]


def test_the_kit_itself_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import atomr.testing as kit"
    command = [sys.executable, "-c", f"{code}; print(kit.run.__name__)"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )

    assert done.stdout == "run\n"
