"""A virtual key on two gateways, two processes over mutual TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.cli.certificates import make_folder
from tests.cli.conftest import run_command, start_command
from tests.gateway.http import chat_body, request
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Command

ENV = {"ADMIN": "adm-0123456789", "COOKIE": "a secret of all nodes"}

CONFIG = """\
[gateway]
bind = "127.0.0.1:0"
admin_key = {{ env = "ADMIN" }}
virtual_keys = true
[node]
name = "{name}"
state_dir = "{folder}/{name}"
[cluster]
name = "dev"
voters = ["a", "b"]
cookie = {{ env = "COOKIE" }}
ca = "{folder}/ca.pem"
certificate = "{folder}/{name}.pem"
private_key = "{folder}/{name}.key"
listen = "127.0.0.1:{port}"
seeds = ["127.0.0.1:{seed}"]
[[deployment]]
name = "m"
runtime = "mock"
"""


def configure(folder: Path, name: str, *, port: int, seed: int) -> Path:
    path = folder / f"{name}.toml"
    text = CONFIG.format(name=name, folder=folder, port=port, seed=seed)
    path.write_text(text)
    return path


async def status(command: Command, secret: str) -> int:
    path, authorization = "/v1/chat/completions", f"Bearer {secret.strip()}"
    answer = await request(
        command.port, "POST", path, chat_body(), authorization=authorization
    )
    return answer.status


async def becomes(command: Command, secret: str, wanted: int) -> None:
    """Ask until the answer is of a status."""
    with trio.fail_after(30):
        while await status(command, secret) != wanted:  # noqa: ASYNC110 - another process
            await trio.sleep(0.02)


@pytest.mark.slow
async def test_a_key_of_one_gateway_opens_the_other_until_it_is_revoked(
    tmp_path: Path,
) -> None:
    make_folder(tmp_path, cluster="dev", nodes=("a", "b"))
    seed = free_port()
    a = configure(tmp_path, "a", port=seed, seed=seed)
    b = configure(tmp_path, "b", port=0, seed=seed)
    async with (
        start_command("serve", "-c", str(a), **ENV) as first,
        start_command("serve", "-c", str(b), **ENV) as second,
    ):
        await first.serving()
        await second.serving()

        async def keys(command: Command, *arguments: str) -> str:
            url = f"http://127.0.0.1:{command.port}"
            to = ("-c", str(a), "--url", url)
            code, out, err = await run_command("keys", *arguments, *to, **ENV)
            assert code == 0, err
            return out

        old = await keys(first, "create", "--name", "ci")
        await becomes(second, old, 200)
        new = await keys(second, "rotate", "ci", "--grace", "0s")
        await becomes(first, new, 200)
        await becomes(first, old, 401)  # its end comes behind what is new
        await keys(second, "change", "ci", "--models", "other")
        await becomes(first, new, 403)
        await keys(first, "change", "ci", "--models", "none")
        await becomes(second, new, 200)
        await keys(second, "revoke", "ci")
        assert await status(second, new) == 401
        await becomes(first, new, 401)
        assert "ci" in await keys(first, "list")
    for command in (first, second):
        assert "Traceback" not in command.stderr
