"""The runtime plugin ``tensorrt``.

TensorRT runs plans, which are built for one version of it and one kind of GPU, and
builds them of ONNX files.  Its runners live in a child interpreter: a crash, and what
is left of a broken context on the GPU, must stay a child's.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr_infer.runtimes.by_model import Fit, Machine
from atomr_infer.runtimes.contract import (
    Host,
    ModelRunner,
    Progress,
    RunnerContext,
    RuntimePlugin,
)
from atomr_infer.runtimes.files import local_path
from atomr_infer_tensorrt.options import is_plan, parse_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from atomr_infer.model.deployment import Deployment
    from atomr_infer_tensorrt.loading import Runner
    from atomr_infer_tensorrt.options import Options
    from atomr_infer_tensorrt.plan import Backend

LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""One of them is needed."""

PACKAGES = ("numpy", "onnx", "tokenizers", "jinja2", "llguidance")
"""What it imports beside the library and CUDA's bindings."""


def _open_backend(options: Options) -> Backend:
    # The engine is imported when a deployment is opened.
    from atomr_infer_tensorrt.loading import open_backend  # noqa: PLC0415

    return open_backend(options)


class TensorRTPlugin(RuntimePlugin):
    """Plans and ONNX files on NVIDIA's GPUs.

    Args:
        opener: opens the library with a GPU; what it gives has the shape of
            :class:`~atomr_infer_tensorrt.plan.Backend`.
    """

    name = "tensorrt"
    summary = "TensorRT: plans, and ONNX models made into plans, on this machine's GPU"
    host = Host.CHILD_PROCESS

    def __init__(self, opener: Callable[[Options], Backend] = _open_backend) -> None:
        self._opener = opener

    def missing(self) -> tuple[str, ...]:
        """Return what is not installed: one of the libraries, and what it needs."""
        gone = [name for name in PACKAGES if not importlib.util.find_spec(name)]
        if not importlib.util.find_spec("cuda"):
            gone.append("cuda-bindings")
        if not any(importlib.util.find_spec(name) for name in LIBRARIES):
            gone.append("tensorrt")
        return tuple(gone)

    def suits(self, model: str, machine: Machine) -> Fit | None:
        """Take plans; an ONNX file is made into one where a deployment says so."""
        return Fit(50, "it runs a plan") if is_plan(model) else None

    def validate(self, deployment: Deployment) -> None:
        """Check the options."""
        parse_options(deployment)

    def files(self, deployment: Deployment) -> tuple[Path, ...]:
        """Return the plan, the model's file, or the directory with one of them."""
        path = local_path(parse_options(deployment).source)
        return () if path is None else (path,)

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[ModelRunner]:
        """Open the plan, and build it before that where none is kept.

        Raises:
            ConfigError: the options are wrong, or a file or a package is missing.
            EngineStartError: there is no GPU, the model cannot be made into a plan,
                or the plan is for another version or GPU.
        """
        options = parse_options(deployment)
        token = trio.lowlevel.current_trio_token()

        def report(progress: Progress) -> None:
            token.run_sync_soon(context.progress, progress)

        # Numpy and onnx are imported when a deployment is opened.
        from atomr_infer_tensorrt.loading import load  # noqa: PLC0415

        def open_it() -> Runner:
            backend = self._opener(options)
            return load(
                options,
                backend,
                report,
                environ=os.environ,
                token=context.credential,
            )

        # Neither building nor opening can be interrupted.
        runner = await trio.to_thread.run_sync(open_it, abandon_on_cancel=True)
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


PLUGIN = TensorRTPlugin()
