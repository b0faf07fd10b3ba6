"""What processes that run tests side by side tell of those that pass, made short.

pytest tells each of a test's three phases with all that it knows of it, which is to be
written, sent and read: of the processor that an empty test takes, a fifth.  Nobody asks
for more of a phase that passed, and said nothing, than that it did and when.
"""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_report_to_serializable(
    report: pytest.CollectReport | pytest.TestReport,
) -> dict[str, Any] | None:
    """Tell of a phase that passed in few words; leave all else to pytest."""
    if not isinstance(report, pytest.TestReport) or not report.passed:
        return None
    if report.sections or report.user_properties or hasattr(report, "wasxfail"):
        return None
    told = (report.nodeid, report.location, report.when, report.start, report.stop)
    return {"passed": told}


@pytest.hookimpl(tryfirst=True)
def pytest_report_from_serializable(data: dict[str, Any]) -> pytest.TestReport | None:
    """Read what was told in few words; leave all else to pytest."""
    if "passed" not in data:
        return None
    nodeid, location, when, start, stop = data["passed"]
    return pytest.TestReport(
        nodeid=nodeid,
        location=location,
        keywords={},
        outcome="passed",
        longrepr=None,
        when=when,
        start=start,
        stop=stop,
        duration=stop - start,
    )
