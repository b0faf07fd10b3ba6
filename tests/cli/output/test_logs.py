"""What ``serve`` writes to standard error, line by line."""

from __future__ import annotations

import subprocess
import sys

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
    assert "ZeroDivisionError: division by zero" in lines
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
