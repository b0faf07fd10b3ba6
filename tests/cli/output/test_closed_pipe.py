"""A command whose reader has left, as ``head -1`` does, ends without a word."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import COMMAND, environment, mock_config

if TYPE_CHECKING:
    from collections.abc import Callable

# As of a program that SIGPIPE has ended.
STATUS = 141


def run_unread(*arguments: str, **env: str) -> tuple[int, str]:
    """Run it with nobody at its standard output: exit status, and standard error."""
    read, write = os.pipe()
    os.close(read)
    try:
        ran = subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=environment(**env),
        )
    finally:
        os.close(write)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("arguments", [["runtimes", "--json"], ["keys", "--help"]])
def test_nobody_reads_what_is_listed(arguments: list[str]) -> None:
    assert run_unread(*arguments) == (STATUS, "")


def test_nobody_reads_what_is_listed_in_colour() -> None:
    assert run_unread("runtimes", FORCE_COLOR="1") == (STATUS, "")


def test_nobody_reads_that_a_file_is_good(write: Callable[[str], str]) -> None:
    assert run_unread("check", "-c", write(mock_config())) == (STATUS, "")
