"""A model that cannot fit is refused before vLLM loads it, with the figures."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.gpu_memory import FreeGpu
from atomr_infer_vllm import fit
from atomr_infer_vllm.fit import check_model_fits
from atomr_infer_vllm.options import Options
from tests.engines.environments import how_to_make, interpreter_of
from tests.plugins.vllm.vllm_names import Hub, put_in_place
from tests.runtimes.recorded_gpus import RecordedGpus
from tests.runtimes.test_loaded_size import write

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer.runtimes.contract import Progress

MIB = 1 << 20
GPUS = RecordedGpus(*(FreeGpu(f"GPU-{n}", "T4", 100 * MIB) for n in range(2)))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return put_in_place(monkeypatch, on_cpu=True)


def check(weights: str, *, driver: RecordedGpus | None = GPUS, **said: Any) -> None:
    on_cpu = driver is None
    options = Options(weights=weights, **said)
    check_model_fits(options, lambda _: None, on_cpu=on_cpu, load=lambda: driver)


def refused(weights: str, *, driver: RecordedGpus | None = GPUS, **said: Any) -> str:
    with pytest.raises(EngineStartError) as caught:
        check(weights, driver=driver, **said)
    return caught.value.message


def numbers(file_mib: int | None = None, **kinds: int) -> SimpleNamespace:
    """What the hub tells of one file; None: not its size."""
    size = None if file_mib is None else file_mib * MIB
    return SimpleNamespace(
        safetensors=SimpleNamespace(parameters={k: n * MIB for k, n in kinds.items()}),
        siblings=[SimpleNamespace(rfilename="model.safetensors", size=size)],
    )


def files(**sizes: int) -> SimpleNamespace:
    siblings = [
        SimpleNamespace(rfilename=name.replace("__", "."), size=size * MIB)
        for name, size in sizes.items()
    ]
    return SimpleNamespace(safetensors=None, siblings=siblings)


def test_on_a_gpu_it_is_held_against_the_share_that_is_taken(
    hub: Hub, tmp_path: Path
) -> None:
    write(tmp_path / "m.safetensors", ("F32", [48, MIB], 192 * MIB))
    said = refused(str(tmp_path))
    assert said == (
        f"the model {str(tmp_path)!r} does not fit: its weights have 96 MiB, and 90 "
        "MiB of memory of the GPU, of which gpu_memory takes 0.9 at most, are free; "
        "use a smaller or a quantized model, or more GPUs (tensor_parallel)"
    )
    check(str(tmp_path), gpu_memory=0.96)
    check(str(tmp_path), tensor_parallel=2)
    check(str(tmp_path), engine={"pipeline_parallel_size": 2})
    check(str(tmp_path), engine={"cpu_offload_gb": 1})
    check(str(tmp_path), quantization="bitsandbytes")
    assert "192 MiB, and 180 MiB of memory of 2 GPUs together" in refused(
        str(tmp_path), tensor_parallel=2, dtype="float32"
    )
    assert hub.asked == []


def test_it_is_held_against_the_gpus_that_it_was_placed_on(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = FreeGpu("GPU-a", "H100", 300 * MIB), FreeGpu("GPU-b", "T4", 10 * MIB)
    driver = RecordedGpus(large, small, taken_bytes=300 * MIB)
    write(tmp_path / "m.safetensors", ("F16", [48, MIB], 96 * MIB))
    check(str(tmp_path), driver=driver)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b")
    assert "96 MiB, and 10 MiB of memory of the GPU" in refused(
        str(tmp_path), driver=driver
    )


def test_where_nobody_knows_the_gpus_nothing_is_refused(
    hub: Hub, tmp_path: Path
) -> None:
    write(tmp_path / "m.safetensors", ("F16", [1 << 40], 2 << 40))
    check(str(tmp_path), driver=RecordedGpus())
    check(str(tmp_path), tensor_parallel=3)


@pytest.mark.parametrize(
    ("told", "mib"),
    [
        (numbers(400, F32=10, BF16=90), 200),
        (numbers(60, F32=50, BF16=50), 200),
        # Each I32 is told as the eight numbers of 4 bits, or more of 2, in it.
        (numbers(F16=46, I32=16), 100),
        (numbers(101, F16=46, I32=16), 100),
        (numbers(96, F16=46, I32=16), 96),
        (files(model__safetensors=300, consolidated__safetensors=300, a__bin=300), 150),
        (files(pytorch_model__bin=300, README__md=900), 150),
    ],
)
def test_the_hub_says_how_large_its_model_is(
    hub: Hub, told: SimpleNamespace, mib: int
) -> None:
    hub.told = told
    seen: list[Progress] = []
    options = Options(weights="hf:org/large@v1")
    with pytest.raises(EngineStartError, match=f"its weights have {mib} MiB, and 90"):
        check_model_fits(options, seen.append, on_cpu=False, load=lambda: GPUS)
    assert hub.asked == [("org/large", "v1")]
    assert [each.phase for each in seen] == ["asking for org/large"]


def test_a_quantized_model_of_the_hub_that_fits_is_not_refused(hub: Hub) -> None:
    # As of an 8B model of 4 bits, a hundredth of it.
    hub.told = numbers(56, F16=11, I32=70)
    check("org/packed")
    hub.told = numbers(60, BF16=11, U8=70)
    check("org/packed")


def test_on_a_cpu_a_model_of_the_hub_is_weighed_too(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.told = numbers(BF16=100)
    monkeypatch.setattr(fit, "free_bytes", lambda: 200 * MIB - 1)
    assert "its weights have 200 MiB, and 199 MiB of memory are free" in refused(
        "org/large", driver=None
    )
    monkeypatch.setattr(fit, "free_bytes", lambda: 200 * MIB)
    check("org/large", driver=None)


def test_where_the_hub_does_not_answer_its_cache_tells(
    hub: Hub, tmp_path: Path
) -> None:
    check("org/large")
    write(tmp_path / "m.safetensors", ("BF16", [50, MIB], 100 * MIB))
    hub.kept = str(tmp_path)
    said = refused("org/large", engine={"download_dir": "/c", "revision": "v2"})
    assert "its weights have 100 MiB, and 90 MiB" in said
    assert hub.asked[-2:] == [("org/large", "v2"), ("org/large", "v2", "/c")]


@pytest.mark.engine
@pytest.mark.slow
def test_the_hub_s_own_library_is_asked_so(tmp_path: Path) -> None:
    python = interpreter_of("vllm")
    if python is None:
        pytest.skip(how_to_make("vllm"))
    kept = tmp_path / "models--org--large"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("c0ffee")
    (kept / "snapshots" / "c0ffee").mkdir(parents=True)
    write(kept / "snapshots" / "c0ffee" / "m.safetensors", ("BF16", [1 << 40], 2 << 40))
    script = (
        "from atomr_infer_vllm.fit import check_model_fits\n"
        "from atomr_infer_vllm.options import Options\n"
        "options = Options(weights='hf:org/large')\n"
        "check_model_fits(options, lambda _: None, on_cpu=True)\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    said = subprocess.run(
        [str(python), "-c", script],
        env={**os.environ, **offline},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert "its weights have 2097152 MiB" in said.stderr
