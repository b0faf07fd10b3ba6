"""What the command says about itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from atomr_infer._version import VERSION
from tests.children import or_killed
from tests.cli.conftest import (
    COMMAND,
    environment,
    mock_config,
    run_command,
    start_command,
)
from tests.gateway.http import chat

if TYPE_CHECKING:
    from collections.abc import Callable

# Prints what is loaded when the command has ended.
WATCHED = """\
import sys
from atomr_infer.cli.main import main
try:
    main()
finally:
    print("loaded:", *(name for name in sys.modules if "." not in name))
    print("modules:", len(sys.modules))
"""

# What a gateway of one deployment loads until it stops is 1,099.
MOST_MODULES = 1_120


async def test_help_names_every_command() -> None:
    code, out, err = await run_command("--help")
    assert (code, err) == (0, "")
    assert "One gateway for your own models and everyone else's." in out
    commands = out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in commands] == [
        "breaker",
        "check",
        "cluster",
        "cost-report",
        "deployments",
        "drain",
        "explain",
        "keys",
        "reload",
        "rotate-credentials",
        "runtimes",
        "serve",
        "status",
        "swap",
    ]


async def test_help_of_serve_names_every_option_and_shows_examples() -> None:
    code, out, err = await run_command("serve", "--help")
    assert (code, err) == (0, "")
    for option in (
        "--config FILE",
        "--bind HOST:PORT",
        "--demo",
        "--local [MODEL]",
        "--log-level",
    ):
        assert option in out
    lines = [line.strip() for line in out.splitlines()]
    examples = lines[lines.index("Examples:") + 1 :][:4]
    assert examples == [
        "atomr-infer serve",
        "OPENAI_API_KEY=sk-... atomr-infer serve",
        "atomr-infer serve --local models/tiny.gguf",
        "atomr-infer serve --config atomr.toml --bind 0.0.0.0:8080",
    ]


async def test_version_is_the_packages() -> None:
    code, out, err = await run_command("--version")
    assert (code, out, err) == (0, f"atomr-infer, version {VERSION}\n", "")


async def test_runtimes_are_listed_with_a_line_for_each() -> None:
    code, out, err = await run_command("runtimes")
    assert (code, err) == (0, "")
    head, *lines = out.splitlines()
    assert head.split() == ["runtime", "runs", "in", "what", "it", "is", "state"]
    by_name = {line.split()[0]: line for line in lines}
    assert list(by_name) == sorted(by_name)
    assert {"mistralrs", "mock", "openai"} <= set(by_name)
    assert by_name["mistralrs"].split()[1:3] == ["child", "process"]
    assert by_name["mock"].split()[1] == "in-process"
    assert by_name["openai"].rstrip().endswith("ready")


async def test_runtimes_are_told_to_scripts_as_json() -> None:
    code, out, err = await run_command("runtimes", "--json")
    assert (code, err) == (0, "")
    by_name = {each.pop("runtime"): each for each in json.loads(out)["runtimes"]}
    assert by_name["mock"] == {
        "runs_in": "in-process",
        "what_it_is": "answers from a script, for tests and for trying out a gateway",
        "lacks": None,
    }


@pytest.mark.parametrize(
    ("arguments", "heavy", "status", "said"),
    [
        (["--help"], {"hypercorn", "trio", "rich", "msgspec"}, 0, ""),
        (["serve", "--help"], {"hypercorn", "trio", "rich", "msgspec"}, 0, ""),
        (["status", "--help"], {"hypercorn", "trio", "rich", "msgspec"}, 0, ""),
        # What is wrong with a file is told before anything that serves is read.
        (
            ["serve", "-c", "none.toml"],
            {"hypercorn", "sqlite3", "rich", "h2"},
            1,
            "none.toml",
        ),
        (["runtimes"], {"hypercorn", "mistralrs", "gguf", "numpy"}, 0, ""),
    ],
)
def test_what_serves_nothing_loads_no_server_and_no_engine(
    arguments: list[str], heavy: set[str], status: int, said: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments],
        capture_output=True,
        text=True,
        check=False,  # a file that is not there ends it with 1
        env=environment(),
    )
    assert ran.returncode == status, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    loaded = set(ran.stdout.partition("loaded:")[2].split())
    assert "click" in loaded
    assert loaded & heavy == set()


async def test_a_gateway_loads_nothing_that_it_may_never_need(
    write: Callable[[str], str],
) -> None:
    arguments = ("serve", "-c", write(mock_config("")), "--bind", "127.0.0.1:0")
    program = (sys.executable, "-c", WATCHED)
    async with start_command(*arguments, program=program) as command:
        await command.serving()
        answer = await chat(command.port)
        command.send(signal.SIGINT)
        assert await command.ended() == 0
    assert answer.status == 200
    loaded = set(command.stdout.partition("loaded:")[2].split())
    assert {"trio", "msgspec"} <= loaded
    assert loaded & {"hypercorn", "h11", "wsproto", "multiprocessing", "rich"} == set()
    assert int(command.stdout.partition("modules:")[2]) <= MOST_MODULES


def test_a_reader_that_stops_reading_is_no_traceback() -> None:
    with (
        subprocess.Popen(
            [*COMMAND, "--help"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as command,
        or_killed(command),
    ):
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert b"Traceback" not in command.stderr.read()
