"""One environment per engine: the engines' pins conflict.

``make engines`` makes them; ``make engines ARGS=vllm`` makes one.  An
environment has two parts::

    CACHE/atomr-infer/engines/vllm-0123456789ab/     the engine and what it needs
    CHECKOUT/.engines/vllm/bin/python                the same, and this checkout

The first is large and slow to make, so it is shared by all checkouts of a user,
and made anew when what goes in changes: its requirements, how they are
compiled and installed, Python or the platform.  The second takes a moment, and has this
checkout's ``atomr_infer`` beside the engine: it is the interpreter that a
deployment names.

Each is made beside its place and moved there when it is whole, so that what is
there works; who finds another one making it waits.  Tests never make one: they
ask :func:`interpreter_of`, and are skipped where it answers None.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tests.engines.running import NEVER, locked, run

if TYPE_CHECKING:
    import threading

ROOT = Path(__file__).parents[2]
HERE = ROOT / ".engines"
ALL_ARE_MADE = "ENGINES_ARE_MADE"
"""Set where none may be missing: then no test is skipped for want of one."""
_MADE = "made.json"
_RECIPE = 1
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")


@attrs.frozen(kw_only=True)
class Engine:
    """How an engine's environment is made.

    Attributes:
        name: what ``make engines ARGS=...`` and a deployment's ``runtime`` call it.
        module: what is imported to see that it works.
        cost: what making it takes, for who waits.
        arguments: pip's, before the requirements.
        environ: of pip, such as a compiler's flags.
        project: the project whose library is compiled, as its CMake files call it;
            ``recipe`` is read behind them.  None: nothing is compiled.
    """

    name: str
    module: str
    cost: str
    arguments: tuple[str, ...] = ()
    environ: Mapping[str, str] = attrs.field(factory=dict)
    project: str | None = None

    @property
    def requirements(self) -> Path:
        """The file with every package that it needs, pinned."""
        return Path(__file__).with_name(f"{self.name}.txt")

    @property
    def recipe(self) -> Path:
        """The file that says how its project is compiled, where it has one."""
        return Path(__file__).with_name(f"{self.name}.cmake")

    @property
    def key(self) -> str:
        """Names what goes in: another key is another environment.

        The recipe by its text, for it lies elsewhere in each checkout.  How many
        compilers there are at once changes nothing of what they make.
        """
        parts = [
            _RECIPE,
            self.requirements.read_text(),
            self.arguments,
            sorted(self.environ.items()),
            sys.version_info[:2],
            sysconfig.get_platform(),
        ]
        if self.project is not None:
            parts += [self.project, self.recipe.read_text()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    def environ_of_pip(self) -> dict[str, str]:
        """Return the variables that it is installed with."""
        if self.project is None:
            return dict(self.environ)
        included = f"-DCMAKE_PROJECT_{self.project}_INCLUDE={self.recipe}"
        given = self.environ.get("CMAKE_ARGS", "")
        return {
            **self.environ,
            "CMAKE_ARGS": f"{given} {shlex.quote(included)}".strip(),
            "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
        }

    def arguments_of_pip(self) -> tuple[str, ...]:
        """Return pip's arguments before the requirements."""
        # Pip keeps a wheel that it compiled by its version alone, and would hand out
        # one of another recipe.
        fresh = () if self.project is None else ("--no-cache-dir",)
        return (*fresh, *self.arguments)

    @property
    def folder(self) -> Path:
        """Where the shared part is, or will be."""
        return cache_folder() / "engines" / f"{self.name}-{self.key}"


ENGINES = {
    engine.name: engine
    for engine in (
        Engine(
            name="vllm",
            module="vllm",
            cost="2.2 GB, about 2 minutes",
            # Its own requirements include CUDA builds of packages that it does not
            # need on a CPU and that break it; so every package is named.  Triton, a
            # gigabyte that compiles for GPUs, is not.
            arguments=("--no-deps",),
        ),
        Engine(
            name="llamacpp",
            module="llama_cpp",
            cost="150 MB, compiled in some minutes",
            project="llama_cpp",
            # For any processor of the last ten years, for the key does not name it;
            # and without the parts of it that are programs.
            environ={
                "CMAKE_ARGS": "-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON "
                "-DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DLLAVA_BUILD=OFF "
                "-DLLAMA_BUILD_TOOLS=OFF",
            },
        ),
        Engine(
            name="tensorrt",
            module="tensorrt_rtx",
            cost="450 MB, about 20 seconds",
            # The tokenizer's own requirements are those of downloading models.
            arguments=("--no-deps",),
        ),
        Engine(name="ray", module="ray", cost="290 MB, about 30 seconds"),
    )
}


def cache_folder() -> Path:
    """The user's cache of environments and converted models."""
    own = os.environ.get("ATOMR_INFER_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(own) if own else Path(shared) / "atomr-infer").expanduser()


def interpreter_of(name: str) -> Path | None:
    """The interpreter of an engine, with this checkout; None: it is not made.

    Raises:
        LookupError: it is not, and the environment says that all are.
    """
    engine, place = ENGINES[name], HERE / name
    with suppress(FileNotFoundError):
        made = json.loads((place / _MADE).read_text())
        if made == _note(engine) and (engine.folder / _MADE).exists():
            return place / "bin" / "python"
    if os.environ.get(ALL_ARE_MADE):
        raise LookupError(f"{how_to_make(name)}; {ALL_ARE_MADE} says that all are")
    return None


def how_to_make(name: str) -> str:
    """What a skipped test says."""
    return f"the environment of {name} is not made; run: make engines ARGS={name}"


def others(engine: Engine) -> list[Path]:
    """Environments of the same engine that are made of something else."""
    made = engine.folder.parent.glob(f"{engine.name}-*/{_MADE}")
    return sorted(file.parent for file in made if file.parent != engine.folder)


def make(engine: Engine, *, stop: threading.Event = NEVER) -> Path:
    """Make what is missing of an engine's environment; return its interpreter.

    Raises:
        CommandError: a command failed.
        StoppedError: ``stop`` was set before it was made.
        OSError: the disk is full, or what is there is not ours to write.
    """
    folder = engine.folder
    what = f"{engine.name}'s environment"
    with locked(folder.with_suffix(".lock"), what, stop=stop):
        if not (folder / _MADE).exists():
            _make_shared(engine, folder, stop)
    what = f"{engine.name}'s interpreter"
    with locked(HERE / f"{engine.name}.lock", what, stop=stop):
        found = interpreter_of(engine.name)
        return _make_here(engine, stop) if found is None else found


def _make_shared(engine: Engine, folder: Path, stop: threading.Event) -> None:
    print(f"{engine.name}: making {folder} ({engine.cost})", flush=True)
    partial = _empty(folder)
    python = str(partial / "bin" / "python")
    # By this interpreter's pip: one of its own would take longer than a small engine.
    make_venv = (sys.executable, "-m", "venv", "--without-pip", str(partial))
    run(make_venv, f"{engine.name}: making an environment", stop=stop)
    # What is imported is compiled then, which is a part of what there is.
    pip = (*_PIP, "--python", python, "install", "--no-compile")
    run(
        (*pip, *engine.arguments_of_pip(), "-r", str(engine.requirements)),
        f"{engine.name}: installing {engine.requirements.name}",
        environ=engine.environ_of_pip(),
        stop=stop,
    )
    run(
        (python, "-c", f"import {engine.module}"),
        f"{engine.name}: trying to import it",
        stop=stop,
    )
    (partial / _MADE).write_text(json.dumps(_note(engine)))
    partial.rename(folder)


def _make_here(engine: Engine, stop: threading.Event) -> Path:
    place = HERE / engine.name
    partial = _empty(place)
    make_venv = (sys.executable, "-m", "venv", "--without-pip", str(partial))
    run(make_venv, f"{engine.name}: adding this checkout", stop=stop)
    packages = Path(_packages_of(partial))
    shared = _packages_of(engine.folder)
    # The engine's own .pth files count too, so its folder is added as a site.
    lines = [f"import site; site.addsitedir({shared!r})"]
    lines += [str(ROOT), str(ROOT / "plugins")]
    (packages / "atomr_infer.pth").write_text("\n".join(lines) + "\n")
    (partial / _MADE).write_text(json.dumps(_note(engine)))
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    return place / "bin" / "python"


def _empty(folder: Path) -> Path:
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    return partial


def _packages_of(environment: Path) -> str:
    return sysconfig.get_path("purelib", "venv", {"base": str(environment)})


def _note(engine: Engine) -> dict[str, str]:
    return {"engine": str(engine.folder), "checkout": str(ROOT)}
