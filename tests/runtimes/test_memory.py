"""What is free is told from files, and a model that is larger is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.errors import EngineStartError
from atomr_infer.runtimes.memory import check_fits, free_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

AVAILABLE = "MemFree: 1 kB\nMemAvailable:  2000 kB\n"


def test_the_figures_are_told() -> None:
    check_fits("m", 100, None)
    check_fits("m", 100, 100)
    with pytest.raises(EngineStartError) as caught:
        check_fits("m", 3 * 2**20, 2**21)
    assert caught.value.message == (
        "the model 'm' does not fit: its weights have 3 MiB, and 2 MiB of memory are "
        "free; use a smaller or a quantized model, or another machine"
    )


def test_a_runtime_may_know_another_remedy() -> None:
    with pytest.raises(EngineStartError, match=r"are free; quantize it$"):
        check_fits("m", 3 * 2**20, 2**21, remedy="quantize it")


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"proc/meminfo": AVAILABLE}, 2000 * 1024),
        ({"proc/meminfo": AVAILABLE, "cg/memory.max": "9000\n"}, 2000 * 1024),
        (
            {
                "proc/meminfo": AVAILABLE,
                "cg/memory.max": "9000\n",
                "cg/memory.current": "1000\n",
            },
            8000,
        ),
        ({"cg/memory.max": "max\n", "cg/memory.current": "1000\n"}, None),
        ({"cg/memory.max": "5", "cg/memory.current": "9"}, 0),
        # What the kernel keeps of files is not in the way.
        (
            {
                "cg/memory.max": "9000",
                "cg/memory.current": "8000",
                "cg/memory.stat": "anon 1000\ninactive_file 6500\n",
            },
            7500,
        ),
        # A service's own group, and the slice above it.
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.service\n",
                "cg/a.slice/memory.max": "7000",
                "cg/a.slice/memory.current": "3000",
                "cg/a.slice/b.service/memory.max": "9000",
                "cg/a.slice/b.service/memory.current": "1000",
            },
            4000,
        ),
        # The first version of control groups.
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/job\n",
                "cg/memory/memory.limit_in_bytes": str(2**63 - 4096),
                "cg/memory/memory.usage_in_bytes": "1",
                "cg/memory/job/memory.limit_in_bytes": "6000",
                "cg/memory/job/memory.usage_in_bytes": "5000",
                "cg/memory/job/memory.stat": "total_inactive_file 500\n",
            },
            1500,
        ),
        # In a container the path is the host's, and only the root is there.
        (
            {
                "proc/self/cgroup": "0::/docker/1234\n",
                "cg/memory.max": "100",
                "cg/memory.current": "40",
            },
            60,
        ),
    ],
)
def test_what_is_free_is_the_least_of_machine_and_groups(
    tmp_path: Path, files: Mapping[str, str], free: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_bytes(tmp_path / "proc", tmp_path / "cg") == free


def test_this_machine_has_some_memory() -> None:
    free = free_bytes()
    assert free is not None
    assert free > 0
