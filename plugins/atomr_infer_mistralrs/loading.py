"""Loading a model into mistral.rs.

Blocks for as long as it takes; belongs in a worker thread.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.runtimes.by_model import Form, form_of_hub
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.gguf_files import part_paths
from atomr_infer.runtimes.gpu_memory import free_gpu_bytes
from atomr_infer.runtimes.hub.fetching import fetch_model, hub_of
from atomr_infer.runtimes.hub.names import HubModel
from atomr_infer.runtimes.kept_models import cache_folder
from atomr_infer.runtimes.loaded_size import loaded_bytes
from atomr_infer.runtimes.memory import check_fits, free_bytes
from atomr_infer.runtimes.weights import quantized_bytes, weights_bytes
from atomr_infer_mistralrs.faults import first_line
from atomr_infer_mistralrs.models import as_q8_0, locate
from atomr_infer_mistralrs.options import (
    BYTES_PER_WEIGHT,
    Options,
    Quantization,
    Source,
)
from atomr_infer_mistralrs.runner import MistralRsRunner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import mistralrs

    from atomr_infer.model.secret import Secret
    from atomr_infer.runtimes.kept_models import Report

_FLOAT_BYTES_ON_GPUS = 2
"""What a number of a directory takes there: mistral.rs loads those of 32 bits in 16."""

UNKNOWN_CONTEXT_TOKENS = 4096
"""Bounds answers of a model that does not say how long its context is."""


def load(
    options: Options,
    report: Report,
    environ: Mapping[str, str],
    token: Secret | None = None,
) -> MistralRsRunner:
    """Find or fetch the model, convert it where that is asked for, and load it.

    Args:
        options: the model, and how it is run.
        report: told how far it has come.
        environ: where the caches and the hub are named.
        token: opens models of a hub that are not public.

    Raises:
        ConfigError: a file or a package is missing.
        EngineStartError: the model cannot be fetched, converted or loaded, or is
            larger than the memory that is free.
    """
    path = _found(options.source, report, environ, token)
    in_situ = None
    if options.quantization is not Quantization.NONE:
        if path.is_dir():
            in_situ = options.quantization
        else:
            _refuse_split(path)
            path = as_q8_0(path, cache_folder(environ), report)
    _check_room(path, in_situ, environ)
    report(Progress("loading the model"))
    return _open(path, None if in_situ is None else in_situ.value, options.max_seqs)


def _refuse_split(path: Path) -> None:
    parts = part_paths(path)
    if len(parts) > 1:
        raise ConfigError(
            f"{path.name!r} is one of {len(parts)} parts, and only a whole file is "
            "quantized; leave the option quantization out, or join them: "
            f"llama-gguf-split --merge {path} JOINED.gguf"
        )


def _found(
    source: Source, report: Report, environ: Mapping[str, str], token: Secret | None
) -> Path:
    if not isinstance(source, HubModel):
        return locate(source)
    weights = ".gguf" if form_of_hub(source) is Form.GGUF else ".safetensors"
    return fetch_model(hub_of(environ, token), source, (weights,), report)


def _check_room(
    path: Path, in_situ: Quantization | None, environ: Mapping[str, str]
) -> None:
    """Refuse a model that is larger than what is free for its layers.

    Raises:
        EngineStartError: with both figures.
    """
    is_for_cuda = _is_for_cuda()
    if in_situ is not None:
        needed = quantized_bytes(path, BYTES_PER_WEIGHT[in_situ])
    elif is_for_cuda and path.is_dir():
        needed = loaded_bytes(path, _FLOAT_BYTES_ON_GPUS)
    else:
        needed = weights_bytes(path)
    free = free_bytes()
    if not is_for_cuda:
        check_fits(str(path), needed, free)
        return
    # It fills the GPUs, and computes the layers that are left over on the processors.
    on_gpus = free_gpu_bytes(environ)
    both = None if free is None or on_gpus is None else free + on_gpus
    where = "memory of the GPUs and the machine together"
    check_fits(str(path), needed, both, where=where)


def _is_for_cuda() -> bool:
    # The builds for other devices are distributions of other names, with the same
    # module; the one for Metal has the machine's own memory.
    try:
        importlib.metadata.distribution("mistralrs-cuda")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _open(path: Path, in_situ_quant: str | None, max_seqs: int) -> MistralRsRunner:
    # The engine's library is loaded when a deployment is, not to list runtimes.
    try:
        import mistralrs  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"mistral.rs cannot be imported ({error}); "
            "run: pip install 'atomr-infer[mistralrs]'"
        ) from error
    try:
        engine = mistralrs.Runner(
            which=_which(path),
            max_seqs=max_seqs,
            in_situ_quant=in_situ_quant,
            # It would look for a token of a hub that is not asked.
            token_source="none",
        )
        context_tokens = engine.max_sequence_length()
    except ValueError as error:
        raise EngineStartError(
            f"mistral.rs cannot load {str(path)!r}: {first_line(error)}"
        ) from error
    return MistralRsRunner(
        engine,
        context_tokens=context_tokens or UNKNOWN_CONTEXT_TOKENS,
        max_seqs=max_seqs,
    )


def _which(path: Path) -> mistralrs.Which:
    from mistralrs import Which  # noqa: PLC0415  as above

    # The stubs declare the variants as nested classes, not as members.
    if path.is_dir():
        return Which.Plain(model_id=str(path))  # type: ignore[return-value]
    folder, files = str(path.parent), [part.name for part in part_paths(path)]
    return Which.GGUF(quantized_model_id=folder, quantized_filename=files)  # type: ignore[return-value]
