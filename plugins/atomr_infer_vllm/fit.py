"""Whether a model's weights fit where vLLM puts them, told before it loads them.

vLLM finds it out by itself, after minutes and without the figures.  What is compared
is a lower bound with an upper one: a model is refused only where its weights alone are
more than there is.  Of a model on the hub the hub is asked, through its own library,
which vLLM brings along, and where it does not answer, the cache is looked at.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.gpu_memory import free_gpu_bytes, load_nvml
from atomr_infer.runtimes.loaded_size import (
    counted_bytes,
    has_packed,
    loaded_bytes,
    untold_bytes,
)
from atomr_infer.runtimes.memory import check_fits, free_bytes
from atomr_infer.runtimes.weights import without_copies
from atomr_infer_vllm.options import ALSO_SPREAD_OVER, hub_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from atomr_infer.runtimes.gpu_memory import Nvml
    from atomr_infer_vllm.options import Options

log = logging.getLogger(__name__)

_HUB_ANSWERS_IN_S = 10.0

_KINDS = (".safetensors", ".bin", ".pt")


def check_model_fits(
    options: Options,
    report: Callable[[Progress], None],
    *,
    on_cpu: bool,
    load: Callable[[], Nvml] = load_nvml,
) -> None:
    """Refuse a model whose weights are more than the memory that vLLM may take.

    Blocks; the hub has some seconds to answer.

    Args:
        options: what the deployment asks for.
        report: told that the hub is asked.
        on_cpu: whether vLLM runs on a CPU here.
        load: returns NVIDIA's module.

    Raises:
        EngineStartError: it does not fit; with the figures.
    """
    needed = _needed_bytes(options, report)
    if on_cpu:
        check_fits(options.weights, needed, free_bytes())
        return
    if any("offload" in name for name in options.engine):
        return  # weights are elsewhere, too
    count = options.tensor_parallel
    for name in ALSO_SPREAD_OVER:
        count *= options.engine.get(name, 1)
    share = options.gpu_memory
    free = free_gpu_bytes(os.environ, range(count), load, share=share)
    gpus = "the GPU" if count == 1 else f"{count} GPUs together"
    check_fits(
        options.weights,
        needed,
        free,
        where=f"memory of {gpus}, of which gpu_memory takes {share:g} at most,",
        remedy="use a smaller or a quantized model, or more GPUs (tensor_parallel)",
    )


def _needed_bytes(options: Options, report: Callable[[Progress], None]) -> int:
    """Return what the weights take, at least; 0: nobody knows."""
    width = _float_bytes(options)
    if options.folder is not None:
        return loaded_bytes(options.folder, width)
    repo, revision = hub_name(options)
    report(Progress(f"asking for {repo}"))
    import huggingface_hub  # noqa: PLC0415  vLLM's environment has it

    try:
        told = huggingface_hub.HfApi().model_info(
            repo, revision=revision, files_metadata=True, timeout=_HUB_ANSWERS_IN_S
        )
    except Exception as error:  # noqa: BLE001  the library's, and its HTTP client's
        # vLLM asks the same, and fails with it where the cache has not all.
        log.info("the hub does not say how large %s is: %s", repo, error)
        return _cached_bytes(options, width)
    return _told_bytes(told, width)


def _float_bytes(options: Options) -> float:
    if options.quantization is not None:
        return 0.5  # it may be done while they are loaded, to 4 bits at least
    return 4 if options.dtype == "float32" else 2


def _told_bytes(told: Any, width: float) -> int:  # noqa: ANN401  the hub's ModelInfo
    sizes = {file.rfilename: file.size or 0 for file in told.siblings or ()}
    kept = sum(sizes[name] for name in _weights_among(sizes))
    if told.safetensors is None:
        return untold_bytes(kept)
    numbers = told.safetensors.parameters
    counted = counted_bytes(numbers, width)
    # Numbers of 2 bits are packed more densely than is counted, and stay as they are.
    return min(counted, kept) if has_packed(numbers) and kept else counted


def _weights_among(names: Iterable[str]) -> list[str]:
    """Return the files with weights that are loaded: of one kind, as vLLM does."""
    at_top = [name for name in names if "/" not in name]
    for kind in _KINDS:
        found = [name for name in at_top if name.endswith(kind)]
        if found:
            return without_copies(found)
    return []


def _cached_bytes(options: Options, width: float) -> int:
    import huggingface_hub  # noqa: PLC0415  as above

    repo, revision = hub_name(options)
    try:
        folder = huggingface_hub.snapshot_download(
            repo,
            revision=revision,
            cache_dir=options.engine.get("download_dir"),
            local_files_only=True,
        )
    except FileNotFoundError:
        return 0  # it is not there
    return loaded_bytes(Path(folder), width)
