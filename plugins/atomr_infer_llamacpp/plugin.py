"""The runtime plugin ``llamacpp``.

llama.cpp runs GGUF files on CPUs and, where it was built so, on GPUs.  Its runners
live in a child interpreter: the library ends its process when it meets what it did
not expect.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from atomr_infer.runtimes.by_model import Fit, Form, Machine, form_of
from atomr_infer.runtimes.contract import (
    Host,
    ModelRunner,
    Progress,
    RunnerContext,
    RuntimePlugin,
)
from atomr_infer.runtimes.files import expanded
from atomr_infer.runtimes.gguf_files import part_paths
from atomr_infer_llamacpp.options import parse_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.deployment import Deployment

PACKAGES = {"llama-cpp-python": "llama_cpp", "numpy": "numpy", "jinja2": "jinja2"}
"""What it imports, by the name under which it is installed."""


class LlamaCppPlugin(RuntimePlugin):
    """GGUF files on llama.cpp."""

    name = "llamacpp"
    summary = "llama.cpp: GGUF models on this machine, by llama-cpp-python"
    host = Host.CHILD_PROCESS

    def missing(self) -> tuple[str, ...]:
        """Return those of :data:`PACKAGES` that are not installed."""
        return tuple(
            name
            for name, module in PACKAGES.items()
            if importlib.util.find_spec(module) is None
        )

    def suits(self, model: str, machine: Machine) -> Fit | None:
        """Take GGUF files: they are its own format."""
        form = form_of(model)
        return Fit(40, f"{form.value} is its own format") if form is Form.GGUF else None

    def validate(self, deployment: Deployment) -> None:
        """Check the model's form and the options."""
        parse_options(deployment)

    def files(self, deployment: Deployment) -> tuple[Path, ...]:
        """Return the model's file, or its parts, where it is given by its path."""
        source = parse_options(deployment).source
        return part_paths(expanded(source)) if isinstance(source, Path) else ()

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[ModelRunner]:
        """Load the model.

        Raises:
            ConfigError: the options are wrong, a file is missing, or the build has no
                GPU and one is asked for.
            EngineStartError: the model cannot be loaded or does not fit.
        """
        options = parse_options(deployment)
        token = trio.lowlevel.current_trio_token()

        def report(progress: Progress) -> None:
            token.run_sync_soon(context.progress, progress)

        # The library is imported when a deployment is opened.
        from atomr_infer_llamacpp.loading import loaded  # noqa: PLC0415

        loading = loaded(options, report, os.environ, context.credential)
        # The engine cannot be interrupted while it loads.
        runner = await trio.to_thread.run_sync(
            loading.__enter__, abandon_on_cancel=True
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(runner.run)
                yield runner
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The nursery is ours alone: what the block raised must leave it bare.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from group.exceptions[0].__cause__
            raise
        finally:
            loading.__exit__(None, None, None)


PLUGIN = LlamaCppPlugin()
