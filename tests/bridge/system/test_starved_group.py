"""A child that the kernel kills for want of memory: the parent says that it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from atomr_infer.bridge.system.want import places

if TYPE_CHECKING:
    from collections.abc import Iterator

WHERE_AWKWARD_IS = Path(__file__).parents[1]
LIMIT_MIB = 320

PROGRAM = """
import os, sys, trio
from pathlib import Path
Path(sys.argv[2], "cgroup.procs").write_text(str(os.getpid()))
sys.path.insert(0, sys.argv[1])
from atomr_infer.bridge import open_bridged_runner
from atomr_infer.errors import InferenceError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes.contract import RunnerContext

async def main():
    deployment = Deployment(name="awk", runtime="awkward")
    async with open_bridged_runner(
        "awkward:PLUGIN", deployment, RunnerContext(), python_path=[sys.argv[1]]
    ) as runner:
        batch = ExecuteBatch(
            request_id="r", model="m", messages=(Message(Role.USER, "eat"),)
        )
        async with runner.execute(batch) as chunks:
            try:
                async for _ in chunks:
                    pass
            except InferenceError as error:
                print(error.kind, error.code, error.message, sep="|")

trio.run(main)
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group below ours, with little memory."""
    own = Path("/proc/self/cgroup").read_text()
    mounted = Path("/proc/self/mountinfo").read_text()
    found = places(own, mounted)
    if not found:
        pytest.skip("no control group of memory is mounted here")
    where = found[0]
    made = Path(where.folder, f"atomr-starved-group-{os.getpid()}")
    try:
        made.mkdir()
    except FileExistsError:
        raise  # an earlier run's, which was not removed
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        names = {
            1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
            2: ("memory.max", None),
        }
        limit, swap = names[where.version]
        if not (made / limit).exists():
            pytest.skip("a control group that is made here has no bound on memory")
        (made / limit).write_text(str(LIMIT_MIB * 2**20))
        if swap is not None and (made / swap).exists():
            (made / swap).write_text(str(LIMIT_MIB * 2**20))
        yield made
    finally:
        made.rmdir()


def test_a_child_that_the_kernel_kills_for_memory_is_said_to_be(group: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(WHERE_AWKWARD_IS), str(group)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    kind, code, message = ended.stdout.strip().split("|")
    assert (kind, code) == ("engine_crashed", "out_of_memory")
    begins, _, ends = message.partition("; its control group may have ")
    assert begins == (
        "the engine process of deployment 'awk': "
        "most likely killed by the kernel for want of memory"
    )
    assert ends.startswith(f"{LIMIT_MIB} MiB and had ")
    assert ends.endswith(" at most (killed by SIGKILL (9))")
