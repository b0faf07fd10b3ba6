"""An ONNX Runtime session on the execution providers that were asked for.

ONNX Runtime falls back to the CPU in silence when a provider cannot be used (a
GPU build without its libraries does), and lists providers that are built in
whether they work or not.  So what a session got is compared with what was
asked for, and a difference stops the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import onnxruntime

from atomr_infer.errors import EngineStartError
from atomr_infer_ort.faults import load_error
from atomr_infer_ort.options import PROVIDERS

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer_ort.options import Options

_INSTALLS = {
    "cuda": "pip install 'atomr-infer[ort-gpu]', in an environment without onnxruntime",
    "tensorrt": (
        "pip install 'atomr-infer[ort-gpu]' tensorrt, in an environment without "
        "onnxruntime"
    ),
    "openvino": "pip install onnxruntime-openvino, in place of onnxruntime",
    "directml": "pip install onnxruntime-directml, in place of onnxruntime",
}

_ERROR_SEVERITY = 3
"""Warnings tell of optimizations; an operator can do nothing about them."""


class Session(Protocol):
    """What is used of ``onnxruntime.InferenceSession``, which has no types."""

    def get_inputs(self) -> list[Any]:
        """Return names, types and shapes."""
        ...

    def get_outputs(self) -> list[Any]:
        """Return names, types and shapes."""
        ...

    def get_providers(self) -> list[str]:
        """Return the providers that are used."""
        ...

    def run(self, outputs: list[str], feeds: dict[str, Any]) -> list[Any]:
        """Compute, arrays in and out."""
        ...

    def io_binding(self) -> Any:  # noqa: ANN401
        """Return what inputs and outputs are bound to."""
        ...

    def run_with_iobinding(self, binding: Any) -> None:  # noqa: ANN401
        """Compute what is bound."""
        ...


def open_session(path: Path, options: Options) -> Session:
    """Load a model.

    Raises:
        ConfigError: a file of the model is missing.
        EngineStartError: a provider is missing, or the model cannot be loaded.
    """
    _check_built_in(options.providers)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _ERROR_SEVERITY
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    # A thread that spins for work takes a core from the gateway beside it.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    asked = [
        (PROVIDERS[name], dict(options.provider_options.get(name, {})))
        for name in options.providers
    ]
    try:
        made = onnxruntime.InferenceSession(str(path), settings, providers=asked)
    # Its errors have no common class but Exception.
    except Exception as error:
        raise load_error(str(path), error) from error
    session = cast("Session", made)
    _check_used(options.providers, session.get_providers())
    return session


def _check_built_in(names: tuple[str, ...]) -> None:
    built_in = onnxruntime.get_available_providers()
    for name in names:
        if PROVIDERS[name] not in built_in:
            raise EngineStartError(
                f"execution provider {name!r} is not in this build of ONNX Runtime, "
                f"which has {_short(built_in)}{_remedy(name)}"
            )


def _check_used(names: tuple[str, ...], used: list[str]) -> None:
    for name in names:
        if PROVIDERS[name] not in used:
            raise EngineStartError(
                f"execution provider {name!r} cannot be used here: ONNX Runtime fell "
                f"back to {_short(used)}; the engine's output says which library or "
                "device is missing"
            )


def _remedy(name: str) -> str:
    return f"; {_INSTALLS[name]}" if name in _INSTALLS else ""


def _short(providers: list[str]) -> str:
    names = {full: short for short, full in PROVIDERS.items()}
    return ", ".join(names.get(full, full) for full in providers)
