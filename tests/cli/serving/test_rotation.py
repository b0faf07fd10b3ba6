"""A key that is replaced in its file takes effect in a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_openai_upstream
from tests.at_once import no_time
from tests.cli.conftest import start_command
from tests.gateway.http import Answer, chat, events, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

    from tests.cli.conftest import Command


async def ask(command: Command, into: list[Answer], *, stream: bool = False) -> None:
    into.append(await chat(command.port, model="gpt-x", stream=stream))


async def test_a_rotated_file_is_used_while_an_answer_streams_on(
    write: Callable[[str], str], tmp_path: Path, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    file, fresh = tmp_path / "key", tmp_path / "fresh"
    file.write_text("sk-old\n")
    slow = script.Happy(tokens=("a", "b", "c", "d"), delay_s=0.1)
    async with open_openai_upstream([slow], api_key="sk-old") as upstream:
        config = write(
            "[[deployment]]\nname = 'gpt'\nserves = ['gpt-*']\nruntime = 'openai'\n"
            "credential = { file = 'key' }\n"
            f"options = {{ endpoint = '{upstream.base_url}' }}\n"
        )
        arguments = ("serve", "-c", config, "--bind", "127.0.0.1:0")
        async with start_command(*arguments) as command:
            await command.serving()
            streamed: list[Answer] = []
            whole: list[Answer] = []
            async with trio.open_nursery() as nursery:

                async def stream() -> None:
                    await ask(command, streamed, stream=True)

                nursery.start_soon(stream)
                await until(lambda: len(upstream.requests) == 1)
                with no_time(mock_clock):  # for the upstream
                    fresh.write_text("sk-new\n")
                    fresh.replace(file)
                    upstream.api_keys = {"sk-new"}  # the old one is revoked
                    await ask(command, whole)
                    assert not streamed, "the first answer is still under way"
        used = [request.headers["authorization"] for request in upstream.requests]
    assert whole[0].status == 200
    assert events(streamed[0])[-1] == "[DONE]"
    # The old one once more, unless the file has been looked at meanwhile.
    assert used[0] == "Bearer sk-old"
    assert used[-1] == "Bearer sk-new"


async def test_a_refused_key_keeps_no_other_from_serving_until_it_is_replaced(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    file, fresh = tmp_path / "key", tmp_path / "fresh"
    file.write_text("sk-old\n")
    async with open_openai_upstream(api_key="sk-new") as upstream:
        config = write(
            "[[deployment]]\nname = 'gpt-x'\nruntime = 'openai'\n"
            "credential = { file = 'key' }\n"
            f"options = {{ endpoint = '{upstream.base_url}' }}\n"
            "[[deployment]]\nname = 'tiny'\nruntime = 'mock'\n"
        )
        arguments = ("serve", "-c", config, "--bind", "127.0.0.1:0")
        async with start_command(*arguments) as command:
            await command.serving()
            assert (
                "deployment 'gpt-x' cannot be served: the provider refuses the key"
                f" from the file {file}: "
            ) in command.stderr
            assert "sk-old" not in command.stderr
            assert (await chat(command.port, model="tiny")).status == 200
            assert (await chat(command.port, model="gpt-x")).status == 502
            fresh.write_text("sk-new\n")
            fresh.replace(file)
            answers: list[Answer] = []
            with trio.fail_after(60):
                while not answers or answers[-1].status != 200:
                    await ask(command, answers)
                    await trio.sleep(0.05)
        used = {request.headers["authorization"] for request in upstream.requests}
        assert used == {"Bearer sk-new"}
