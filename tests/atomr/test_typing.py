"""Type checkers infer what the typing examples say, and reject what they reject."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = Path(__file__).with_name("typing_examples.py")


def test_mypy_accepts_the_typing_examples() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(EXAMPLES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.stdout, ran.returncode) == (
        "Success: no issues found in 1 source file\n",
        0,
    )


def test_pyright_accepts_the_typing_examples(tmp_path: Path) -> None:
    # An example of an error that is none is an error: each ignore is needed.
    config = {
        "include": [str(EXAMPLES)],
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    written = tmp_path / "pyrightconfig.json"
    written.write_text(json.dumps(config), encoding="utf-8")
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "basedpyright", "--outputjson"),
            *("--pythonpath", sys.executable, "--project", str(written)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    report = json.loads(ran.stdout)
    problems = [
        (d["range"]["start"]["line"] + 1, d["message"])
        for d in report["generalDiagnostics"]
    ]
    assert (problems, report["summary"]["filesAnalyzed"]) == ([], 1)
