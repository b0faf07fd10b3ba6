"""Each command as users start it: from nothing, and not in this repository.

All other tests of the command start it in a process that has imported all of it.  What
only that process imports would be missing here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest
import trio

from atomr_infer.cli.main import cli
from tests.cli.conftest import COMMAND, START_S, environment
from tests.ports import free_port

CONFIG = """\
[gateway]
admin_key = { env = "ATOMR_INFER_ADMIN_KEY" }
[[deployment]]
name = "m"
runtime = "mock"
"""

# What follows a command's name; each asks a gateway.
ASKING = {
    "breaker": ("m",),
    "cost-report": (),
    "deployments": (),
    "drain": (),
    "explain": ("--dry-run", "m.toml"),
    "keys change": ("ci", "--rpm", "3"),
    "keys create": ("--name", "ci"),
    "keys list": (),
    "keys revoke": ("ci",),
    "keys rotate": ("ci",),
    "reload": (),
    "rotate-credentials": ("m",),
    "status": (),
    "swap": ("m", "-c", "m.toml"),
}

# What follows its name, the exit status, and what is said: on standard error where it
# fails.
ALONE = {
    "check": (("-c", "m.toml"), 0, "m: mock\nm.toml can be served\n"),
    "cluster certs": (
        ("--cluster", "dev", "n"),
        0,
        "made certs/ca.pem\nmade certs/n.pem\n",
    ),
    "runtimes": ((), 0, "answers from a script"),
    "serve": (("-c", "b.toml"), 1, "atomr-infer: b.toml: there is no such file\n"),
}


async def run(
    folder: Path, *arguments: str, program: tuple[str, ...] = COMMAND
) -> tuple[int, str, str]:
    """Return the exit status, standard output and error of a start in a folder."""
    (folder / "m.toml").write_text(CONFIG, encoding="utf-8")
    with trio.fail_after(START_S):
        ended = await trio.run_process(
            [*program, *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=folder,
            env=environment(ATOMR_INFER_ADMIN_KEY="adm-0123456789"),
        )
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize("name", ASKING)
async def test_who_asks_a_gateway_says_that_none_answers(
    name: str, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ended = await run(tmp_path, *name.split(), *ASKING[name], "--url", url)
    said = (
        f"atomr-infer: the gateway at {url} does not answer: no connection to {url}: "
        "Connection refused; one that is elsewhere is named with --url\n"
    )
    assert ended == (1, "", said)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
async def test_who_asks_nobody_does_its_work(name: str, tmp_path: Path) -> None:
    arguments, status, said = ALONE[name]
    code, out, err = await run(tmp_path, *name.split(), *arguments)
    assert (code, out if status else err) == (status, ""), out + err
    assert said in (err if status else out)


@pytest.mark.slow
async def test_the_script_that_is_installed_starts_it(tmp_path: Path) -> None:
    script = str(Path(sys.executable).with_name("atomr-infer"))
    ended = await run(tmp_path, "check", "-c", "m.toml", program=(script,))
    assert ended == (0, "m: mock\nm.toml can be served\n", "")


def test_each_command_is_started() -> None:
    assert sorted(names(cli)) == sorted([*ASKING, *ALONE])


def names(group: click.Group) -> list[str]:
    """Return the names of all commands in a group, below those of their groups."""
    found = []
    for name, command in group.commands.items():
        within = names(command) if isinstance(command, click.Group) else [""]
        found += [f"{name} {each}".strip() for each in within]
    return found
