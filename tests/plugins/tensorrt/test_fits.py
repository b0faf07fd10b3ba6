"""A plan that the GPU has no memory for is refused before it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.errors import EngineStartError
from tests.plugins.tensorrt.test_tensors import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.tensorrt.conftest import Opener
    from tests.plugins.tensorrt.host import HostBackend

MIB = 1 << 20


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return write(tmp_path / "product.onnx", "MatMul", given=("n", 3), made=("n", 2))


async def test_a_plan_larger_than_what_is_free_is_not_opened(
    opened: Opener, tmp_path: Path, backend: HostBackend
) -> None:
    path = tmp_path / "m.plan"
    with path.open("wb") as plan:
        plan.truncate(3 * MIB)
    backend.device.left = 2 * MIB
    with pytest.raises(EngineStartError) as caught:
        async with opened(path):
            raise AssertionError
    assert caught.value.message == (
        f"the model {str(path)!r} does not fit: its weights have 3 MiB, and 2 MiB of "
        "the GPU's memory are free; use a smaller or a quantized model, or another "
        "machine"
    )
    assert not backend.opened


async def test_a_plan_that_was_built_is_weighed_as_well(
    opened: Opener, product: Path, backend: HostBackend
) -> None:
    backend.device.left = 10
    with pytest.raises(EngineStartError, match="0 MiB of the GPU's memory are free"):
        async with opened(product):
            raise AssertionError
    assert backend.built
    assert not backend.opened


async def test_what_runs_compute_in_is_weighed_beside_the_weights(
    opened: Opener, product: Path, backend: HostBackend
) -> None:
    backend.device.left = 9 * MIB
    backend.context_bytes = 3 * MIB
    with pytest.raises(EngineStartError) as caught:
        async with opened(product, contexts=4):
            raise AssertionError
    assert caught.value.message == (
        f"the plan of {str(product)!r} does not fit: beside its weights its runs take "
        "12 MiB (4 at once), and 9 MiB of the GPU's memory are free; lower contexts, "
        "max_batch or the profiles, or use another machine"
    )
    assert caught.value.code == "out_of_memory"
    assert [plan.contexts for plan in backend.opened] == [0]
    async with opened(product, contexts=3):
        pass


async def test_a_model_of_texts_makes_one_run_at_a_time(
    opened: Opener, llama_folder: Path, backend: HostBackend
) -> None:
    backend.context_bytes = backend.device.left // 2 + 1
    async with opened(llama_folder):
        pass
