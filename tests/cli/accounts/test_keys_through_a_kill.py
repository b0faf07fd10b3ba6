"""Keys, budgets and limits of gateways of which one is killed in the middle of work.

Processes and sockets are real.  Fifty clients stream on a budget, keys are made and
revoked, and a rate limit is used to its end, while the node that answers is killed, or
all workers with their parent; then the same state folder is started again.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack, contextmanager, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.cli.conftest import start_command
from tests.cli.serving.test_cluster_serve import BEARER, ENV, NAMES, Three
from tests.cli.serving.test_cluster_serve import CONFIG as OF_THREE
from tests.cli.serving.test_workers import workers_of
from tests.gateway.http import Answer, chat_body, request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Command

pytestmark = pytest.mark.slow

CLIENTS = 50
PER_MINUTE = 60
LIMIT = Decimal("0.01")
HANGS_S = 60.0  # no answer takes a second
KEYS_BEFORE = 5
GONE = (OSError, trio.BrokenResourceError, ValueError, IndexError)  # no whole answer
REFUSALS = 3
REVOKED = 20
STAYS = 10  # on connections of their own: each worker gets some

MODEL = """\
runtime = "mock"
options = { tokens = 50, delay_s = 0.01 }
[deployment.price]
input = 1
output = 1
"""
CONFIG = OF_THREE.replace(
    'runtime = "mock"\n', MODEL.replace("{", "{{").replace("}", "}}")
)
CONFIG = CONFIG.replace("[node]", "virtual_keys = true\n[node]")
OF_WORKERS = f"""\
[gateway]
bind = "127.0.0.1:0"
admin_key = {{ env = "ADMIN" }}
virtual_keys = true
[node]
name = "w"
state_dir = "STATE"
[[deployment]]
name = "tiny"
{MODEL}
"""


async def admin(port: int, method: str, path: str, **members: Any) -> Answer:
    body = json.dumps(members).encode() if members else b""
    return await request(port, method, path, body, authorization=BEARER)


async def ask(port: int, secret: str, *, stream: bool = False) -> Answer:
    body = chat_body(model="tiny", max_tokens=50, stream=stream)
    more = {"authorization": f"Bearer {secret}", "x_atomr_stream_cost": "true"}
    return await request(port, "POST", "/v1/chat/completions", body, **more)


class Work:
    """What clients and an operator do meanwhile, and what they were told."""

    def __init__(self, ports: Callable[[], list[int]]) -> None:
        self._ports = ports
        self.made: dict[str, str] = {}
        self.revoked: dict[str, str] = {}
        self.spent = Decimal(0)
        self.ends: Counter[str] = Counter()
        self.let_in = 0
        self.is_over = False
        self._works = 0

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._works += 1
        try:
            yield
        finally:
            self._works -= 1

    async def ended(self) -> None:
        """Wait until nobody works any more."""
        with trio.fail_after(HANGS_S):
            while self._works:  # noqa: ASYNC110 - several tasks
                await trio.sleep(0.05)

    def port(self, number: int) -> int:
        ports = self._ports()
        return ports[number % len(ports)]

    async def make(self, name: str, **terms: Any) -> str:
        """Make a key; it was made when this returns."""
        answer = await admin(self.port(0), "POST", "/admin/keys", name=name, **terms)
        assert answer.status == 201, answer.body
        secret: str = answer.json["secret"]
        return secret

    async def client(self, number: int, secret: str) -> None:
        """Stream until it is over; each stream ends, however it does."""
        with self._working():
            while not self.is_over:
                with trio.fail_after(HANGS_S):
                    self.ends[await self.stream(number, secret)] += 1

    async def stream(self, number: int, secret: str) -> str:
        try:
            answer = await ask(self.port(number), secret, stream=True)
        except GONE:
            await trio.sleep(0.05)
            return "its node is gone"
        text = answer.body.decode()
        if answer.status != 200:
            await trio.sleep(0.05)
            return str(answer.status)
        if "[DONE]" not in text:
            return "an error" if '"error"' in text else "cut"
        [told] = [x for x in text.splitlines() if x.startswith(": x-atomr-cost-usd: ")]
        self.spent += Decimal(told.rpartition(" ")[2])
        return "done"

    async def spend(self, number: int, secret: str) -> None:
        """Stream until the budget refuses."""
        refused = 0
        while refused < REFUSALS:
            with trio.fail_after(HANGS_S):
                end = await self.stream(number, secret)
            assert end in ("done", "402", "503"), end
            refused += end != "done"

    async def limited(self, secret: str) -> None:
        """Use a rate limit as fast as it goes."""
        with self._working():
            while not self.is_over:
                try:
                    answer = await ask(self.port(self.let_in), secret)
                except GONE:
                    await trio.sleep(0.05)
                    continue
                self.let_in += answer.status == 200

    async def operator(self) -> None:
        """Make keys, and revoke each second one."""
        with self._working():
            number = 0
            while not self.is_over:
                number += 1
                await trio.sleep(0.05)
                with suppress(*GONE):
                    await self._operate(number)

    async def _operate(self, number: int) -> None:
        name, port = f"made-{number}", self.port(number)
        answer = await admin(port, "POST", "/admin/keys", name=name)
        if answer.status != 201:
            return
        secret = answer.json["secret"]
        if number % 2:
            self.made[name] = secret
            return
        id_ = answer.json["key"]["id"]
        answer = await admin(port, "POST", f"/admin/keys/{id_}/revoke")
        if answer.status == 200:
            self.revoked[name] = secret

    async def came(self, count: int) -> None:
        """Wait until so many keys were made, and so many answers are whole."""
        made, done = len(self.made) + count, self.ends["done"] + count
        with trio.fail_after(HANGS_S):
            while len(self.made) < made or self.ends["done"] < done:  # noqa: ASYNC110 - others' work
                await trio.sleep(0.05)


async def opens(port: int, secret: str) -> bool:
    """Whether a gateway lets somebody in."""
    bearer = f"Bearer {secret}"
    answer = await request(port, "GET", "/v1/models", authorization=bearer)
    assert answer.status in (200, 401, 503), answer.body
    return answer.status == 200


async def opens_soon(ports: list[int], secret: str) -> None:
    """Ask each gateway until a key opens it."""
    for port in ports:
        with trio.fail_after(HANGS_S):
            while not await opens(port, secret):  # noqa: ASYNC110 - another process
                await trio.sleep(0.02)


async def check(work: Work, ports: list[int], budgeted: str) -> None:
    """Look at what is left after it was started again."""
    print(f"{len(work.made)} keys made, {len(work.revoked)} more revoked")
    for secret in work.made.values():
        await opens_soon(ports, secret)
    for secret in work.revoked.values():
        for port in ports:
            assert not await opens(port, secret)
    # What is left of the budget can be used, and nothing above it.
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(work.spend, number, budgeted)
    assert work.spent <= LIMIT
    shown = (await admin(ports[0], "GET", "/admin/budgets")).json["budgets"]
    [budget] = [each for each in shown if each["name"] == "key 'spender'"]
    print(f"spent {work.spent} of {LIMIT}; told: {budget}; {dict(work.ends)}")
    assert work.spent * 1_000_000 <= budget["limit"] - budget["remaining"]


async def through(
    work: Work,
    nursery: trio.Nursery,
    kill: Callable[[], Awaitable[None]],
    ports: Callable[[], list[int]],
) -> None:
    """Let all of them work, through a kill and what is started again."""
    limits = {"requests_per_minute": PER_MINUTE}
    budgets = [{"per": "month", "usd": str(LIMIT)}]
    budgeted = await work.make("spender", budgets=budgets)
    limited = await work.make("limited", rate_limits=limits)
    await opens_soon(ports(), limited)
    await opens_soon(ports(), budgeted)
    began_s = trio.current_time()
    for number in range(CLIENTS):
        nursery.start_soon(work.client, number, budgeted)
    for _ in range(3):
        nursery.start_soon(work.limited, limited)
    nursery.start_soon(work.operator)
    await work.came(KEYS_BEFORE)
    await kill()
    work.is_over = True
    await work.ended()
    minutes = (trio.current_time() - began_s) / 60
    print(f"{work.let_in} were let in within {minutes:.2f} minutes")
    assert work.let_in <= PER_MINUTE * (minutes + 1)
    assert work.revoked
    await check(work, ports(), budgeted)


async def test_a_node_that_answers_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        three = Three(tmp_path, stack, config=CONFIG)
        await three.start(*NAMES)
        [holder] = await three.until_held(lambda found: len(found) == 1)

        def ports() -> list[int]:
            there = three.running.values()
            return [each.port for each in there if "Ctrl-C stops." in each.stdout]

        work = Work(ports)

        async def kill() -> None:
            await three.kill(holder)
            await work.came(2)
            await three.start(holder)

        await through(work, nursery, kill, ports)
        for command in three.running.values():
            assert "Traceback" not in command.stderr


async def test_all_workers_are_killed_and_started_again(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    config = write(OF_WORKERS.replace("STATE", str(state)))
    arguments = ("serve", "-c", config, "--workers", "3")
    running: list[Command] = []
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:

        async def start() -> None:
            command = await stack.enter_async_context(start_command(*arguments, **ENV))
            await command.serving()
            running.append(command)

        def ports() -> list[int]:
            # All workers have one, and who asks meets any of them.
            return [running[-1].port]

        await start()
        work = Work(ports)

        async def kill() -> None:
            [first, *_] = workers_of(running[0])
            os.kill(first, signal.SIGKILL)
            await work.came(2)
            workers = workers_of(running[0])
            running[0].send(signal.SIGKILL)
            for pid in workers:
                with suppress(ProcessLookupError):  # it goes with its parent
                    os.kill(pid, signal.SIGKILL)
            await running[0].ended()
            await start()

        await through(work, nursery, kill, ports)
        assert "Traceback" not in "".join(each.stderr for each in running)


async def sees_revoked(work: Work, ports: list[int]) -> None:
    """Revoke keys by one gateway, and see it come to the others and stay.

    How long that takes is printed, and not bounded: a busy machine may take any time.
    """
    asked, let_in, last_s = 0, 0, 0.0
    for number in range(REVOKED):
        secret = await work.make(f"key-{number}")
        await opens_soon(ports * STAYS, secret)
        answer = await admin(ports[0], "POST", f"/admin/keys/key-{number}/revoke")
        assert answer.status == 200
        began_s = trio.current_time()
        for port in ports[1:] or ports * STAYS:
            with trio.fail_after(HANGS_S):
                while await opens(port, secret):
                    let_in += 1
                    last_s = max(last_s, trio.current_time() - began_s)
            asked += 1
        for port in ports * STAYS:
            assert not await opens(port, secret)
    print(f"{let_in} were let in after the answer, and {asked} refused at last;")
    print(f"the last of them was let in {last_s * 1e3:.0f} ms after it")


async def test_a_key_that_one_node_revokes_is_closed_on_the_others_and_stays_so(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        three = Three(tmp_path, stack, config=CONFIG)
        await three.start(*NAMES)
        ports = [each.port for each in three.running.values()]
        await sees_revoked(Work(lambda: ports), ports)


async def test_a_key_that_one_worker_revokes_is_closed_on_the_others_and_stays_so(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    config = write(OF_WORKERS.replace("STATE", str(tmp_path)))
    arguments = ("serve", "-c", config, "--workers", "3")
    async with start_command(*arguments, **ENV) as command:
        await command.serving()
        await sees_revoked(Work(lambda: [command.port]), [command.port])
