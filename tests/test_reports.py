"""Tests that pass are told of in few words, and all others as pytest does."""

from __future__ import annotations

from typing import Any

import pytest

from tests import reports


def report(**more: Any) -> pytest.TestReport:
    members: dict[str, Any] = {
        "nodeid": "tests/test_a.py::test_b[c]",
        "location": ("tests/test_a.py", 3, "test_b[c]"),
        "keywords": {"test_b[c]": 1},
        "outcome": "passed",
        "longrepr": None,
        "when": "call",
        "start": 5.0,
        "stop": 5.5,
        "duration": 0.5,
    }
    return pytest.TestReport(**{**members, **more})


@pytest.mark.parametrize("when", ["setup", "call", "teardown"])
def test_a_phase_that_passed_arrives_as_one(when: Any) -> None:
    sent = report(when=when)
    data = reports.pytest_report_to_serializable(sent)
    assert data is not None
    arrived = reports.pytest_report_from_serializable(data)
    assert arrived is not None
    assert vars(arrived) == {**vars(sent), "keywords": {}}


@pytest.mark.parametrize(
    "other",
    [
        report(outcome="failed", longrepr="it is not so"),
        report(outcome="skipped", longrepr=("tests/test_a.py", 3, "no GPU")),
        report(sections=[("Captured stdout call", "a line")]),
        report(user_properties=[("seed", 4)]),
        report(wasxfail="not yet"),
        pytest.CollectReport("tests/test_a.py", "passed", None, []),
    ],
)
def test_what_is_more_than_that_is_left_to_pytest(
    other: pytest.TestReport | pytest.CollectReport,
) -> None:
    assert reports.pytest_report_to_serializable(other) is None


def test_what_pytest_tells_is_left_to_pytest() -> None:
    assert (
        reports.pytest_report_from_serializable({"$report_type": "TestReport"}) is None
    )


def test_they_are_told_so_here(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.is_registered(reports)
    data = pytestconfig.hook.pytest_report_to_serializable(
        config=pytestconfig, report=report()
    )
    assert list(data) == ["passed"]
