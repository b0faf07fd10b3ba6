"""No secret of a virtual key in anything that a whole run writes, stores or answers.

A real ``serve`` with debug logging, every telemetry event shown and all that ``sys``
tells of each process, and runtimes that break with the request in their hands.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.cli.test_no_secret_leaks import (
    ENV_KEY,
    GATE_KEY,
    deployment,
    leaks,
    open_run,
)
from tests.gateway.http import chat_body, head, parse

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.test_no_secret_leaks import Run

CONFIG = """\
[gateway]
admin_key = {{ env = 'LEAK_GATE' }}
virtual_keys = true
[node]
name = "a"
state_dir = "{state}"
"""

SHOWN_CHARS = 13
"""So much of a secret is shown to operators: what all have in front, and four more."""


async def admin(run: Run, method: str, path: str, **members: Any) -> Any:
    """Ask an operators' route; the answer is of who asked alone."""
    before = len(run.answers)
    body = json.dumps(members).encode() if method == "POST" else b""
    authorization = f"Bearer {GATE_KEY}"
    asked = head(method, f"/admin{path}", len(body), authorization=authorization)
    await run.send(asked + body)
    return parse(bytes(run.answers[before:])).json


async def made(run: Run, path: str, **members: Any) -> str:
    """Make a secret, and take the one answer that shows it out of what is searched."""
    before = len(run.answers)
    answer = await admin(run, "POST", path, **members)
    del run.answers[before:]
    return str(answer["secret"])


async def use(run: Run, key: str, *, last: str = "nobody") -> None:
    """Show a key wherever one can be shown, to whatever may repeat it."""
    for model in ("boom", "dump", last):
        body = chat_body(model=model)
        for shown in (
            {"authorization": f"Bearer {key}"},
            {"x_api_key": key, "x_upstream_key": key},
            {"authorization": key},
        ):
            path = "/v1/chat/completions"
            await run.send(head("POST", path, len(body), **shown) + body)
    for path in ("/v1/models", "/", f"/v1/models?key={key}", "/v1beta/models"):
        await run.send(head("GET", path, 0, x_goog_api_key=key))
    await run.send(head("POST", "/v1/messages", 1, x_api_key=key) + b"{")


def files_of(folder: Path) -> str:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return "".join(path.read_bytes().decode("latin1") for path in paths)


async def test_a_whole_run_shows_no_piece_of_a_virtual_key(tmp_path: Path) -> None:
    state = tmp_path / "state"
    parts = [CONFIG.format(state=state)]
    for model in ("boom", "die", "dump"):
        text = deployment(model, "leaky", "{ env = 'LEAK_KEY' }")
        parts.append(text.replace(f"model = '{model}-x'", f"model = '{model}'"))
    async with open_run(tmp_path, "".join(parts)) as run:
        secrets = [
            await made(run, "/keys", name="ci"),
            await made(run, "/keys", name="old", lifetime_s=0),
        ]
        await use(run, secrets[0], last="die")
        secrets.append(await made(run, "/keys/ci/rotate", grace_s=0))
        for secret in secrets:
            await use(run, secret)
        await admin(run, "POST", "/keys/ci/revoke")
        await use(run, secrets[-1])
        await admin(run, "POST", "/keys", name="ci", models=[secrets[0]] * 300)
        for path in ("/keys", "/tree", "/deployments"):
            await admin(run, "GET", path)
        run.command.process.terminate()
        assert await run.command.ended() == 0
    everything = run.everything() + files_of(state)
    assert leaks(everything, [secret[SHOWN_CHARS:] for secret in secrets]) == []
    assert leaks(everything, [ENV_KEY, GATE_KEY]) == []
    said = run.command.stderr
    for sign in ("EVENT", "SYS", "NODE", "Traceback", "broke with", "died with"):
        assert sign in said, sign
    for secret in secrets:
        assert secret[:SHOWN_CHARS] in run.answers.decode("latin1"), "in the list"
    for why in ("was revoked at", "has another secret", "expired at"):
        assert why in run.answers.decode(), why
    assert "virtual key secrets" in files_of(state)
