"""``serve`` with a key that the provider refuses: strict, it ends before it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.testing.upstream import open_openai_upstream
from tests.cli.conftest import run_command, start_command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = """
[gateway]
bind = "127.0.0.1:0"

[[deployment]]
name = "local"
runtime = "mock"

[[deployment]]
name = "gpt"
runtime = "openai"
serves = ["gpt-4o"]
credential = {{ {source} }}
[deployment.options]
endpoint = "{endpoint}"
"""
RIGHT, WRONG = "sk-right-0123456789", "sk-wrong-0123456789"


@pytest.mark.parametrize("of", ["env", "file"])
async def test_a_strict_start_ends_at_once_and_says_whose_key_is_refused(
    write: Callable[[str], str], tmp_path: Path, of: str
) -> None:
    kept = tmp_path / "key"
    kept.write_text(WRONG)
    source = {"env": 'env = "MY_KEY"', "file": f'file = "{kept}"'}[of]
    async with open_openai_upstream(api_key=RIGHT) as upstream:
        text = CONFIG.format(source=source, endpoint=upstream.base_url)
        status, out, err = await run_command(
            "serve", "-c", write(text), "--strict", MY_KEY=WRONG
        )
    assert status == 1
    assert "Ctrl-C stops." not in out  # it has not served
    where = {"env": "environment variable MY_KEY", "file": f"file {kept}"}[of]
    assert err.splitlines()[-1] == (
        f"atomr-infer: deployment 'gpt' cannot be served: the provider refuses the key "
        f"from the {where}: Incorrect API key provided; put one there that it takes, "
        "or start without --strict: what else there is serves then, and the right key "
        "is taken when it comes"
    )
    assert WRONG not in out + err
    assert "Traceback" not in err


async def test_with_the_right_key_a_strict_start_serves(
    write: Callable[[str], str],
) -> None:
    async with open_openai_upstream(api_key=RIGHT) as upstream:
        text = CONFIG.format(source='env = "MY_KEY"', endpoint=upstream.base_url)
        arguments = ("serve", "-c", write(text), "--strict")
        async with start_command(*arguments, MY_KEY=RIGHT) as command:
            await command.serving()
