"""Three ``serve`` in processes of their own: one is killed, and comes back."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr_infer.cli.certificates import make_folder
from tests.cli.conftest import start_command
from tests.gateway.http import chat, request
from tests.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Command

NAMES = ("a", "b", "c")
WAIT_S = 90.0  # three processes that start at once, on a machine that is busy
ENV = {"ADMIN": "adm-0123456789", "COOKIE": "a secret of all nodes"}
BEARER = f"Bearer {ENV['ADMIN']}"

CONFIG = """\
[gateway]
bind = "127.0.0.1:0"
admin_key = {{ env = "ADMIN" }}
[node]
name = "{name}"
state_dir = "{folder}/{name}"
[cluster]
name = "dev"
voters = ["a", "b", "c"]
cookie = {{ env = "COOKIE" }}
ca = "{folder}/ca.pem"
certificate = "{folder}/{name}.pem"
private_key = "{folder}/{name}.key"
listen = "127.0.0.1:{port}"
seeds = [{seeds}]
replace_after_s = 3
[[deployment]]
name = "tiny"
runtime = "mock"
"""


class Three:
    """Configurations of nodes that find each other, and what runs of them."""

    def __init__(
        self, folder: Path, stack: AsyncExitStack, *, config: str = CONFIG
    ) -> None:
        self._config = config
        make_folder(folder, cluster="dev", nodes=NAMES)
        self._folder = folder
        self._stack = stack
        self._ports = free_ports(len(NAMES))
        self.running: dict[str, Command] = {}

    async def start(self, *names: str) -> None:
        for name in names:
            path = self._configured(name)
            opened = start_command("serve", "-c", str(path), **ENV)
            self.running[name] = await self._stack.enter_async_context(opened)
        for name in names:
            command = self.running[name]
            with trio.fail_after(WAIT_S):
                while "Ctrl-C stops." not in command.stdout:
                    assert command.process.returncode is None, command.stderr
                    await trio.sleep(0.05)

    def _configured(self, name: str) -> Path:
        path = self._folder / f"{name}.toml"
        port = self._ports[NAMES.index(name)]
        seeds = ", ".join(f'"127.0.0.1:{other}"' for other in self._ports)
        text = self._config.format(
            name=name, folder=self._folder, port=port, seeds=seeds
        )
        path.write_text(text)
        return path

    async def kill(self, name: str) -> None:
        command = self.running.pop(name)
        command.send(signal.SIGKILL)
        await command.ended()

    async def shown(self) -> Any:
        """What a node that runs says of the deployment."""
        command = next(iter(self.running.values()))
        answer = await request(
            command.port, "GET", "/admin/placement/tiny", authorization=BEARER
        )
        [found] = answer.json["deployments"]
        return found

    async def holders(self) -> list[str]:
        nodes = (await self.shown())["nodes"]
        return [n["node"] for n in nodes if n["serving"] and n["in_sight"]]

    async def until_held(self, holds: Callable[[list[str]], bool]) -> list[str]:
        with trio.fail_after(WAIT_S):
            while not holds(found := await self.holders()):
                pass
        return found


@pytest.mark.slow
async def test_a_replica_of_a_killed_node_runs_elsewhere_and_stays_there(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        three = Three(tmp_path, stack)
        await three.start(*NAMES)
        [holder] = await three.until_held(lambda found: len(found) == 1)
        for command in three.running.values():
            assert (await chat(command.port, model="tiny")).status == 200
        await three.kill(holder)
        [taker] = await three.until_held(lambda f: len(f) == 1 and f != [holder])
        for command in three.running.values():
            assert (await chat(command.port, model="tiny")).status == 200
        await three.start(holder)
        # It has read the catalogue from its disk, and its replica is another's now.
        assert (await chat(three.running[holder].port, model="tiny")).status == 200
        assert await three.until_held(lambda found: len(found) == 1) == [taker]
        for command in three.running.values():
            assert "Traceback" not in command.stderr
