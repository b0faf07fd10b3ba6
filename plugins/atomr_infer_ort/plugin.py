"""The runtime plugin ``ort``.

ONNX Runtime runs models that were exported to ONNX, on a CPU and, with another
build of the same package, on GPUs.  Its runners live in a child interpreter: a
crash must stay a child's, and so must the memory of a model.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import asynccontextmanager
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
from atomr_infer.runtimes.files import local_path
from atomr_infer_ort.options import parse_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from atomr_infer.model.deployment import Deployment

PACKAGES = ("onnxruntime", "numpy", "tokenizers", "jinja2", "llguidance")
"""What it imports.  ``onnxruntime`` is also what the GPU builds are called."""


class OrtPlugin(RuntimePlugin):
    """Directories with an ONNX file, in the layout of Optimum."""

    name = "ort"
    summary = "ONNX Runtime: exported chat and embedding models on this machine"
    host = Host.CHILD_PROCESS

    def missing(self) -> tuple[str, ...]:
        """Return those of :data:`PACKAGES` that are not installed."""
        return tuple(name for name in PACKAGES if not importlib.util.find_spec(name))

    def suits(self, model: str, machine: Machine) -> Fit | None:
        """Take what was exported to ONNX."""
        form = form_of(model)
        return Fit(50, f"it runs {form.value}") if form is Form.ONNX else None

    def validate(self, deployment: Deployment) -> None:
        """Check the options."""
        parse_options(deployment)

    def files(self, deployment: Deployment) -> tuple[Path, ...]:
        """Return the model's directory, and the draft's."""
        options = parse_options(deployment)
        paths = (options.source, options.draft)
        found = (local_path(path) for path in paths if path is not None)
        return tuple(path for path in found if path is not None)

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[ModelRunner]:
        """Load the model.

        Raises:
            ConfigError: the options are wrong, or a file, a package or an
                execution provider is missing.
            EngineStartError: the model cannot be loaded or does not fit.
        """
        options = parse_options(deployment)
        token = trio.lowlevel.current_trio_token()

        def report(progress: Progress) -> None:
            token.run_sync_soon(context.progress, progress)

        # Numpy and the engine are imported when a deployment is opened.
        from atomr_infer_ort.loading import load  # noqa: PLC0415

        # The engine cannot be interrupted while it loads.
        runner = await trio.to_thread.run_sync(
            load,
            options,
            report,
            os.environ,
            context.credential,
            abandon_on_cancel=True,
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


PLUGIN = OrtPlugin()
