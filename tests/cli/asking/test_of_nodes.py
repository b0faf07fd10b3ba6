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


def test_a_node_on_which_a_deployment_has_no_circuit_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {
        "a": {"status": 200, "answer": {"name": "m", "circuit": CIRCUIT}},
        "b": {"status": 200, "answer": {"name": "m", "circuit": None}},
    }
    monkeypatch.setattr(nodes, "ask_all", lambda *_, **__: answers)
    where = Where("http://127.0.0.1:1", Secret("adm-0123456789"), all_nodes=True)
    with pytest.raises(SystemExit):
        print_circuit(where, "m", "show", as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "[a]",
        "the circuit of http://x is closed",
        "[b]",
        "refused: m asks no endpoint, so it has no circuit",
    ]
