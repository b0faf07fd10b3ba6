"""mypy infers what the typing examples say, and rejects what they reject."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_mypy_accepts_the_typing_examples() -> None:
    examples = Path(__file__).with_name("typing_examples.py")
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(examples)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.stdout, ran.returncode) == (
        "Success: no issues found in 1 source file\n",
        0,
    )
