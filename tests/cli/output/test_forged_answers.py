"""What a gateway, or who answers in its place, says begins no line of a command's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.cli.accounts import cost_table, key_reports
from atomr_infer.cli.asking import nodes, operators
from atomr_infer.cli.asking.explain import print_explanation
from atomr_infer.cli.asking.operators import Where
from atomr_infer.cli.asking.steer import drain, reload
from atomr_infer.cli.asking.swap import _show
from atomr_infer.model.secret import Secret
from tests.cli.output.test_tables import FORGED

if TYPE_CHECKING:
    from collections.abc import Callable

    from click import Command

WHERE = Where("http://127.0.0.1:1", Secret("adm-0123456789"))
SHOWN = r"one\nforged  ready\x1b[1A\x1b[2K"
KEY = {"id": FORGED, "name": "web"}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Have all that a gateway is asked answered so."""

    def answer(told: Any) -> None:
        for module in (cost_table, key_reports, nodes, operators):
            monkeypatch.setattr(module, "ask", lambda *_, **__: told)

    return answer


def test_why_a_node_is_missing_in_a_report_is_one_line(
    answers: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answers({"usage": [], "missing": {FORGED: FORGED}})
    cost_table.print_costs(WHERE, "key", 0, as_json=False)
    assert capsys.readouterr().err.splitlines() == [
        f"warning: without what {SHOWN} has counted: {SHOWN}"
    ]


def test_what_is_said_of_a_key_is_one_line_each(
    answers: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answers({"key": KEY, "secret": FORGED, "warnings": [FORGED, "two"]})
    key_reports.print_revoked(WHERE, "web", as_json=False)
    told = capsys.readouterr()
    assert told.out.splitlines() == [f"the key 'web', {SHOWN}, is revoked"]
    assert told.err.splitlines() == [f"warning: {SHOWN}", "warning: two"]
    key_reports.print_rotated(WHERE, "web", 0.0, as_json=False)
    told = capsys.readouterr()
    assert told.out.splitlines() == [SHOWN]
    assert told.err.splitlines()[1:] == [f"warning: {SHOWN}", "warning: two"]


DRAINED = {
    "grace_s": 0,
    "running": 0,
    "timeout_s": 1,
    "deployments": [{"deployment": FORGED, "to": [], "reason": "alone"}],
}


@pytest.mark.parametrize(
    ("command", "told", "said"),
    [
        (reload, {"differences": [{"line": FORGED}], "notes": []}, SHOWN),
        (reload, {"differences": [], "notes": [FORGED]}, f"note: {SHOWN}"),
        (drain, DRAINED, SHOWN),
    ],
)
def test_what_an_order_has_done_is_one_line_each(
    answers: Callable[[Any], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
    told: Any,
    said: str,
) -> None:
    monkeypatch.setenv("ATOMR_INFER_ADMIN_KEY", "adm-0123456789")
    answers(told)
    command.main(["--url", WHERE.url], standalone_mode=False)
    assert capsys.readouterr().out.splitlines()[-1].startswith(said)


def test_where_something_runs_is_one_line_each(
    answers: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = {
        "name": "m",
        "state": "serving",
        "replicas": 1,
        "everywhere": False,
        "runtime": "mock",
        "runtime_because": "",
        "reason": FORGED,
        "nodes": [],
        "passed": [],
        "conflicts": [FORGED],
    }
    answers({"deployments": [deployment]})
    print_explanation(WHERE, None, as_json=False)
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"  because {SHOWN}",
        f"  conflict: {SHOWN}",
    ]


def test_why_a_swap_went_back_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    _show({"deployment": "m", "phase": "rolled_back", "reason": FORGED})
    assert capsys.readouterr().out.splitlines() == [f"m: rolled_back: {SHOWN}"]
