"""The command line of ``python -m atomr_infer.testing.upstream``."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import attrs
import click
import trio

from atomr_infer.testing.upstreams.anthropic import AnthropicDialect
from atomr_infer.testing.upstreams.dialect import Dialect
from atomr_infer.testing.upstreams.fake import FakeUpstream
from atomr_infer.testing.upstreams.gemini import GeminiDialect
from atomr_infer.testing.upstreams.litellm import LiteLLMDialect
from atomr_infer.testing.upstreams.openai import OpenAIDialect
from atomr_infer.testing.upstreams.scripts import BY_NAME, Script
from atomr_infer.testing.upstreams.serving import serve_upstream

if TYPE_CHECKING:
    from collections.abc import Mapping

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        AnthropicDialect(),
        GeminiDialect(),
        LiteLLMDialect(),
        OpenAIDialect(),
    )
}


class ScriptName(click.ParamType[Script]):
    """A script's name, written with hyphens or underscores."""

    name = "script"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Script:
        """Return the script of that name."""
        known = BY_NAME.get(str(value).replace("-", "_"))
        if known is None:
            self.fail(f"{value!r} is no script; use {', '.join(BY_NAME)}", param, ctx)
        return known()


@attrs.frozen
class _Wanted:
    """What the command line asks for."""

    dialect: Dialect
    script: Script
    api_key: str | None
    host: str
    port: int


async def _serve_until_signalled(wanted: _Wanted) -> None:
    upstream = FakeUpstream(
        wanted.script, dialect=wanted.dialect, api_key=wanted.api_key
    )
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with serve_upstream(upstream, host=wanted.host, port=wanted.port):
            click.echo(upstream.base_url)
            async for _ in signals:
                return


@click.command()
@click.option(
    "--dialect",
    type=click.Choice(sorted(DIALECTS)),
    default="openai",
    show_default=True,
)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, show_default=True, help="0: any free port.")
@click.option("--api-key", default=None, help="Ask for this key.")
@click.option(
    "--script",
    "scripts",
    multiple=True,
    type=ScriptName(),
    help=f"What the next requests get, several times over: {', '.join(BY_NAME)}.",
)
def main(
    dialect: str, host: str, port: int, api_key: str | None, scripts: tuple[Script, ...]
) -> None:
    """Serve a fake upstream; prints its base URL on the first line."""
    behaviours = tuple(behaviour for script in scripts for behaviour in script)
    wanted = _Wanted(DIALECTS[dialect], behaviours, api_key, host, port)
    trio.run(_serve_until_signalled, wanted)
