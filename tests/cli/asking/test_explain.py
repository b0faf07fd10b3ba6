"""``atomr-infer explain``, against a running ``serve``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from atomr_infer.cli.asking.explain import _planned, _told
from tests.cli.conftest import run_command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Start

KEY = {"ADMIN": "adm-0123456789"}
SHOWN = {"ATOMR_INFER_ADMIN_KEY": "adm-0123456789"}
ADMIN = 'admin_key = { env = "ADMIN" }'

PLACED = {
    "name": "big",
    "runtime": "mistralrs",
    "runtime_because": "it runs .gguf files",
    "serves": ["big"],
    "state": "loading",
    "reason": "b: no such file",
    "replicas": 2,
    "everywhere": False,
    "missing": 1,
    "revision": 3,
    "by": "a",
    "nodes": [
        {
            "node": "a",
            "state": "loading",
            "replicas": 1,
            "serving": 0,
            "gpus": [[0, 1]],
            "reason": "",
            "in_sight": False,
        }
    ],
    "passed": [{"node": "c", "why": "gpus", "detail": "has 0 GPUs, not 2"}],
    "conflicts": ["the file of b has older content"],
}


@pytest.mark.slow
async def test_a_running_gateway_says_where_its_deployments_run(
    serve: Start, write: Callable[[str], str], tmp_path: Path
) -> None:
    async with serve(gateway=ADMIN, **KEY) as command:
        await command.serving()
        url = f"http://127.0.0.1:{command.port}"
        code, out, err = await run_command("explain", "--url", url, **SHOWN)
        assert (code, err) == (0, "")
        first, second, third = out.splitlines()
        assert first == "m: serving; 1 replica in all"
        assert second == "  runtime mock"
        assert third.endswith(": serving, 1 of 1 replica")
        code, out, _ = await run_command(
            "explain", "m", "--json", "--url", url, **SHOWN
        )
        assert json.loads(out)["deployments"][0]["state"] == "serving"
        (tmp_path / "model.onnx").touch()
        file = write(f'[[deployment]]\nname = "next"\nmodel = "{tmp_path}"\n')
        code, out, err = await run_command(
            "explain", "--dry-run", file, "--url", url, **SHOWN
        )
        assert (code, err) == (0, "")
        assert out.startswith(
            "deployment 'next': runtime ort, because it runs a directory with an .onnx "
            "file\nnext: would run as follows\n"
        )
        code, _, err = await run_command("explain", "x", "--url", url, **SHOWN)
        assert code == 1
        assert "refuses: there is no deployment and no model 'x'" in err


def test_what_waits_is_told_with_its_reasons() -> None:
    assert list(_told(PLACED)) == [
        "big: loading; 2 replicas in all",
        "  runtime mistralrs, because it runs .gguf files",
        "  because b: no such file",
        "  a: loading, 0 of 1 replica, GPU 0, 1, out of sight",
        "  not c: has 0 GPUs, not 2",
        "  conflict: the file of b has older content",
    ]


def test_what_would_find_no_place_is_told() -> None:
    answer = {
        "name": "big",
        "nodes": [{"node": "a", "replicas": 1, "gpus": [[0]]}],
        "missing": 1,
        "passed": [{"node": "b", "why": "role", "detail": "lacks the role gpu"}],
    }
    assert list(_planned(answer)) == [
        "big: would run as follows; 1 replica would find no place",
        "  a: 1 replica, GPU 0",
        "  not b: lacks the role gpu",
    ]
