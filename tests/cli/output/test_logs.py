"""What ``serve`` writes to standard error, line by line."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys
from atomr_infer.cli.output.logs import configure_logging
configure_logging("info")
log = logging.getLogger("some.part")
log.debug("unseen")
log.info("%s of %d", "one", 2)
log.warning("100%")
log.info("%(a)s", {"a": 1})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("it broke")
log.info("%d", "no number")
"""


def test_each_event_is_a_line_and_an_error_has_its_traceback() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    lines = ran.stderr.splitlines()
    times, texts = zip(*(line.split(" ", 1) for line in lines[:4]), strict=True)
    assert all(len(each.split(":")) == 3 for each in times)
    assert list(texts) == [
        "INFO    some.part: one of 2",
        "WARNING some.part: 100%",
        "INFO    some.part: 1",
        "ERROR   some.part: it broke",
    ]
    assert "    ZeroDivisionError: division by zero" in lines
    assert "--- Logging error ---" in lines  # said, and nothing else broke


def test_every_usual_field_of_a_record_can_be_formatted() -> None:
    form = (
        "%(name)s %(levelno)d %(levelname)s %(pathname)s %(filename)s %(module)s"
        " %(lineno)d %(funcName)s %(created)f %(msecs)d %(relativeCreated)d"
        " %(thread)s %(threadName)s %(process)s %(processName)s %(message)s"
    )
    program = (
        "import logging\n"
        "from atomr_infer.cli.output.logs import configure_logging\n"
        "configure_logging('info')\n"
        "handler = logging.StreamHandler()\n"
        f"handler.setFormatter(logging.Formatter({form!r}))\n"
        "logging.getLogger().handlers[:] = [handler]\n"
        "logging.getLogger('x').info('all')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stderr.startswith("x 20 INFO")
    assert ran.stderr.endswith("None None None None all\n")


CRASHES = """
import sys
import trio
from atomr.process import open_node, spawn, wait_exit
from atomr_infer.cli.output.logs import configure_logging
from atomr_infer.errors import EngineCrashedError
configure_logging(sys.argv[1])

async def fail(error):
    raise error

async def main():
    async with open_node():
        for error in (EngineCrashedError("killed"), KeyError("a bug")):
            await wait_exit(spawn(fail, error))

trio.run(main)
"""


@pytest.mark.parametrize(("level", "told"), [("info", 0), ("debug", 1)])
def test_where_an_engines_end_was_noticed_is_for_developers(
    level: str, told: int
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CRASHES, level],
        capture_output=True,
        text=True,
        check=True,
    )
    crashes = [line for line in ran.stderr.splitlines() if " crashed: " in line]
    assert sum("killed" in line for line in crashes) == told
    assert sum("a bug" in line for line in crashes) == 1
    assert ran.stderr.count("Traceback") == told + 1


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", {"engine info", "engine warning", "own info"}),
        ("info", {"engine warning", "own info"}),
        ("warning", {"engine warning"}),
        ("error", set()),
    ],
)
def test_what_engines_write_is_shown_when_they_fail_and_what_ones_own_code_prints(
    level: str, shown: set[str]
) -> None:
    program = (
        "import logging\n"
        "from atomr_infer.cli.output.logs import configure_logging\n"
        f"configure_logging({level!r})\n"
        "logging.getLogger('atomr_infer.engine.m').info('engine info')\n"
        "logging.getLogger('atomr_infer.engine.m').warning('engine warning')\n"
        "logging.getLogger('atomr_infer.python.m').info('own info')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert {line.split(": ", 1)[1] for line in ran.stderr.splitlines()} == shown
