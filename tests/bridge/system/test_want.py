"""What the kernel's counters say of a death: whose they are, and what rose when."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from atomr_infer.bridge.parent import reasons
from atomr_infer.bridge.protocol.values import error_to_wire
from atomr_infer.bridge.system.kernel import KernelWatch
from atomr_infer.bridge.system.want import Counted, Kills, Place, places
from atomr_infer.errors import (
    OUT_OF_MEMORY,
    EngineCrashedError,
    EngineError,
    EngineHungError,
    EngineStartError,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from atomr_infer.bridge import BridgedRunner

MIB = 2**20
KILLED = -signal.SIGKILL
BY_SIGNAL = "killed by SIGKILL (9)"
WANT = "killed by the kernel for want of memory"


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        (Counted(group=3), Counted(group=3), None),
        (Counted(group=3), Counted(group=4), WANT),
        (
            Counted(group=3),
            Counted(group=4, limit_bytes=512 * MIB, peak_bytes=511 * MIB),
            f"{WANT}; its control group may have 512 MiB and had 511 MiB at most",
        ),
        # Whoever is killed in there is counted, an engine beside this one as well.
        (
            Counted(group=3),
            Counted(group=4, peak_bytes=8 * MIB, is_shared=True),
            f"most likely {WANT}; its control group had 8 MiB at most",
        ),
        # Version 1 writes this where there is no limit.
        (
            Counted(group=3),
            Counted(group=4, limit_bytes=2**63 - 4096, peak_bytes=8 * MIB),
            f"{WANT}; its control group had 8 MiB at most",
        ),
        # Somebody of another group was killed, and we by whoever may.
        (Counted(group=3, machine=7), Counted(group=3, machine=8), None),
        (Counted(machine=7), Counted(machine=7), None),
        (Counted(machine=7), Counted(machine=8), f"most likely {WANT}"),
        (
            Counted(machine=7),
            Counted(machine=8, total_bytes=4096 * MIB),
            f"most likely {WANT}; the machine has 4096 MiB",
        ),
        # The group went with the process: the machine's count is left.
        (Counted(group=3, machine=7), Counted(machine=8), f"most likely {WANT}"),
        (Counted(), Counted(), None),
    ],
)
def test_a_count_that_rose_says_why(
    before: Counted, now: Counted, why: str | None
) -> None:
    kills = Kills(turns=3)
    assert kills.why(now) is None
    kills.note(before)
    assert kills.why(now) == why


def test_what_was_counted_long_before_is_another_s() -> None:
    kills = Kills(turns=3)
    kills.note(Counted(group=0))
    for _ in range(2):
        kills.note(Counted(group=1))
    assert kills.why(Counted(group=1)) == WANT
    kills.note(Counted(group=1))
    assert kills.why(Counted(group=1)) is None


V1 = "9:name=systemd:/\n4:memory:/pod/a\n3:cpu,cpuacct:/\n0::/\n"
V2 = "0::/pod/a\n"
M1 = "33 32 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
M1_CPU = "34 32 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
M2 = "35 32 0:31 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n"
M1_INSIDE = "33 32 0:29 /pod /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
M2_TOP = "35 32 0:31 /pod/a /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"
M2_OTHER = "35 32 0:31 /po /mnt ro - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "found"),
    [
        (V1, M1_CPU + M1, [("/sys/fs/cgroup/memory/pod/a", 1)]),
        (V1, M1 + M2, [("/sys/fs/cgroup/memory/pod/a", 1), ("/sys/fs/cgroup", 2)]),
        (V1, M1_INSIDE, [("/sys/fs/cgroup/memory/a", 1)]),
        (V2, M1 + M2, [("/sys/fs/cgroup/pod/a", 2)]),
        (V2, M2_OTHER + M2_TOP, [("/sys/fs/cgroup", 2)]),
        (V2, "", []),
        ("", M1 + M2, []),
    ],
)
def test_a_group_is_found_where_its_hierarchy_is_mounted(
    cgroup: str, mountinfo: str, found: list[tuple[str, int]]
) -> None:
    assert places(cgroup, mountinfo) == tuple(Place(*one) for one in found)


@pytest.fixture(params=[1, 2, None])
def counts(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[Path, int | None, Callable[[int, int], None]]:
    """A planted ``/proc``, which version it tells of, and what has it count."""
    version: int | None = request.param
    proc, mount = tmp_path / "proc", tmp_path / "cgroup"
    group = mount / "pod"
    for folder in (proc / "self", proc / "77", group):
        folder.mkdir(parents=True)
    kind = "cgroup c rw,memory" if version == 1 else "cgroup2 c rw"
    # Others may have mounted what they like, where they like.
    theirs = b"2 1 0:2 / /media/caf\xe9 rw - vfat d rw\n"
    ours = f"1 1 0:1 / {mount} rw - {kind}\n".encode()
    (proc / "self/mountinfo").write_bytes(theirs + ours)
    (proc / "77/cgroup").write_text("4:memory:/pod\n" if version == 1 else "0::/pod\n")
    (proc / "meminfo").write_text("MemTotal:       2048 kB\nMemFree: 1 kB\n")
    names = {
        1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes"),
        2: ("memory.max", "memory.peak"),
    }
    for name in names.get(version or 0, ()):
        (group / name).write_text(f"{64 * MIB}\n")

    def count(in_group: int, on_machine: int) -> None:
        (proc / "vmstat").write_text(f"nr_free_pages 9\noom_kill {on_machine}\n")
        if version == 1:
            told = f"oom_kill_disable 0\nunder_oom 0\noom_kill {in_group}\n"
            (group / "memory.oom_control").write_text(told)
        elif version == 2:
            told = f"low 0\nhigh 9\nmax 9\noom 9\noom_kill {in_group}\n"
            (group / "memory.events").write_text(told + "oom_group_kill 9\n")

    return proc, version, count


def test_the_kernel_s_files_are_read(
    counts: tuple[Path, int | None, Callable[[int, int], None]],
) -> None:
    proc, version, count = counts
    count(1, 5)
    watch = KernelWatch(77, proc)
    count(1, 6 if version else 5)
    assert watch.how(KILLED) == (BY_SIGNAL, False)
    count(2, 7)
    why = (
        f"{WANT}; its control group may have 64 MiB and had 64 MiB at most"
        if version
        else f"most likely {WANT}; the machine has 2 MiB"
    )
    assert watch.how(KILLED) == (f"{why} ({BY_SIGNAL})", True)
    # Where the gateway is in there too, another of its engines may be who was killed.
    (proc / "self/cgroup").write_text((proc / "77/cgroup").read_text())
    shared = KernelWatch(77, proc)
    count(3, 8)
    how, is_want = shared.how(KILLED)
    assert (how.startswith(f"most likely {WANT}"), is_want) == (True, True)
    # Who ends in another way was not killed.
    assert watch.how(-signal.SIGSEGV) == ("killed by SIGSEGV (11)", False)
    assert watch.how(3) == ("exited with status 3", False)


async def test_a_child_that_is_killed_so_says_it(
    counts: tuple[Path, int | None, Callable[[int, int], None]],
    bridged: Callable[..., AbstractAsyncContextManager[BridgedRunner]],
) -> None:
    proc, _, count = counts
    count(1, 5)
    async with bridged() as runner:
        runner._kernel = KernelWatch(77, proc)
        count(2, 6)
        os.kill(runner.pid, signal.SIGKILL)
        with trio.fail_after(30):
            error = await runner.failed()
    assert (type(error), error.code) == (EngineCrashedError, OUT_OF_MEMORY)
    assert WANT in error.message


@pytest.mark.parametrize("starts", [True, False])
def test_a_crash_is_told_with_what_the_kernel_says(*, starts: bool) -> None:
    lost = error_to_wire(encode(EngineCrashedError("the core died")))
    kind = EngineStartError if starts else EngineCrashedError
    end = reasons.told_of_end(lost, None, starts=starts)
    assert (type(end), end.code, end.message) == (kind, None, "the core died")
    end = reasons.told_of_end(lost, WANT, starts=starts)
    told = kind, OUT_OF_MEMORY, f"the core died; a process was {WANT}"
    assert (type(end), end.code, end.message) == told


@pytest.mark.parametrize("kind", [EngineStartError, EngineHungError])
def test_what_an_engine_says_of_itself_is_the_reason(kind: type[EngineError]) -> None:
    own = error_to_wire(encode(kind("there is no such file")))
    end = reasons.told_of_end(own, WANT, starts=True)
    assert (type(end), end.code, end.message) == (kind, None, "there is no such file")


def test_without_files_nothing_is_said(tmp_path: Path) -> None:
    assert KernelWatch(77, tmp_path).how(KILLED) == (BY_SIGNAL, False)
