"""What the commands print that ask all nodes, and where no key is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.cli.asking import nodes
from atomr_infer.cli.asking.operators import Where, find_gateway
from atomr_infer.cli.asking.status import print_circuit, print_status
from atomr_infer.errors import ConfigError
from atomr_infer.model.secret import Secret
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

URL, SECRET = "http://127.0.0.1:1", Secret("adm-0123456789")
CIRCUIT = {
    "endpoint": "http://x",
    "state": "closed",
    "refuses": False,
    "history": [],
}


def test_without_a_key_the_message_says_both_ways_to_give_one() -> None:
    with pytest.raises(ConfigError) as caught:
        find_gateway(config_path=None, url=None, environ={})
    assert str(caught.value) == (
        "the operators' routes ask for the gateway's admin key: the environment "
        "variable ATOMR_INFER_ADMIN_KEY is not set; set it with: export "
        "ATOMR_INFER_ADMIN_KEY=..., or name the gateway's configuration: --config FILE"
    )


def test_who_moved_in_the_file_is_said_to_be_where_it_was(tmp_path: Path) -> None:
    """A changed ``bind`` waits for a restart, and the command asks the new one."""
    path, port = tmp_path / "atomr.toml", free_port()
    path.write_text(
        f'[gateway]\nbind = "127.0.0.1:{port}"\nadmin_key = {{ env = "KEY" }}\n'
        '[[deployment]]\nname = "m"\nruntime = "mock"\n'
    )
    environ, told = {"KEY": "adm-0123456789"}, {}
    for url in (None, f"http://127.0.0.1:{port}"):
        where = find_gateway(config_path=path, url=url, environ=environ)
        with pytest.raises(ConfigError) as caught:
            print_status(where, as_json=False)
        text = str(caught.value)
        assert text.startswith(
            f"the gateway at http://127.0.0.1:{port} does not answer"
        )
        told[url] = text.rpartition("; ")[2]
    assert list(told.values()) == [
        "one that was started before its address was changed is still where it was: "
        "--url URL names it",
        "one that is elsewhere is named with --url",
    ]


def status_of(configuration: dict[str, object]) -> dict[str, object]:
    """Return what a node answers that has nothing but a configuration to tell of."""
    empty = ("ending", "away", "problems", "deployments", "limits", "budgets")
    told = {"node": "n", "ready": True, "configuration": configuration}
    return {**told, **{name: [] for name in empty}}


def test_each_mistake_of_a_refused_file_is_a_line_below_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "f.toml:2: unknown key 'prot'\nf.toml:5: roles is\x1b[2K a string"
    refused = {"state": "refused", "refused_at_s": 0, "reason": reason}
    monkeypatch.setattr(nodes, "ask", lambda *_, **__: status_of(refused))
    print_status(Where(URL, SECRET), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith(": f.toml:2: unknown key 'prot'")
    assert lines[2] == r"    f.toml:5: roles is\x1b[2K a string"


def test_what_a_node_refuses_with_writes_over_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"error": {"message": "no\x1b[1A\r such thing\n[b]"}}
    answers = {"a": {"status": 404, "answer": error}}
    monkeypatch.setattr(nodes, "ask_all", lambda *_, **__: answers)
    with pytest.raises(SystemExit):
        print_status(Where(URL, SECRET, all_nodes=True), as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "[a]",
        r"refused: no\x1b[1A\r such thing",
        "    [b]",
    ]


def test_a_node_on_which_a_deployment_has_no_circuit_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {
        "a": {"status": 200, "answer": {"name": "m", "circuit": CIRCUIT}},
        "b": {"status": 200, "answer": {"name": "m", "circuit": None}},
    }
    monkeypatch.setattr(nodes, "ask_all", lambda *_, **__: answers)
    where = Where(URL, SECRET, all_nodes=True)
    with pytest.raises(SystemExit):
        print_circuit(where, "m", "show", as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "[a]",
        "the circuit of http://x is closed",
        "[b]",
        "refused: m asks no endpoint, so it has no circuit",
    ]


def test_why_a_circuit_opened_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = {"before": "closed", "after": "open", "ago_s": 3, "reason": "x\n\x1b[2Ky"}
    answer = {"name": "m", "circuit": {**CIRCUIT, "history": [step]}}
    monkeypatch.setattr(nodes, "ask", lambda *_, **__: answer)
    print_circuit(Where(URL, SECRET), "m", "show", as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "the circuit of http://x is closed",
        r"  3 s ago: closed -> open (x\n\x1b[2Ky)",
    ]
