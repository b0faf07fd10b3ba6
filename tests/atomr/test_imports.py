"""The pure part of atomr loads no event loop."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import atomr.core

PURE = [
    "atomr",
    "atomr.errors",
    "atomr.refs",
    "atomr.telemetry",
    *(m.name for m in pkgutil.iter_modules(atomr.core.__path__, "atomr.core.")),
]


@pytest.mark.parametrize("module", PURE)
def test_importing_a_pure_module_does_not_load_trio(module: str) -> None:
    code = f"import sys, {module}; print('trio' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert ran.stdout == "False\n"
