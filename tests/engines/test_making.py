"""Environments of engines: made once, whole, and by one at a time."""

from __future__ import annotations

import fcntl
import io
import os
import select
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import attrs
import pytest

from tests.engines import environments, running
from tests.engines import make as command
from tests.engines.environments import (
    ALL_ARE_MADE,
    ENGINES,
    Engine,
    how_to_make,
    interpreter_of,
    make,
    others,
)
from tests.engines.running import CommandError, StoppedError, locked, run

ROOT = Path(__file__).parents[2]


def test_a_command_that_fails_is_told_with_its_last_lines() -> None:
    command = (sys.executable, "-c", "print('one'); print('two'); raise SystemExit(3)")
    with pytest.raises(CommandError) as caught:
        run(command, "trying")
    assert str(caught.value) == (
        f"trying: this failed:\n  {' '.join(command)}\nIts last lines:\n  one\n  two"
    )


def test_a_command_that_takes_too_long_is_killed() -> None:
    command = (sys.executable, "-c", "import time; time.sleep(600)")
    with pytest.raises(CommandError, match="did not end in 0 s"):
        run(command, "trying", longest_s=0.05)


def test_who_finds_another_one_at_work_says_so_and_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.lock"
    order: list[str] = []

    def second() -> None:
        with locked(path, "x"):
            order.append("second")

    with locked(path, "x"):
        waiting = threading.Thread(target=second)
        waiting.start()
        while "waiting for another process that makes x" not in capsys.readouterr().out:
            assert waiting.is_alive()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


@attrs.frozen(kw_only=True)
class Small(Engine):
    """An engine that needs what a file in another folder says."""

    file: Path

    @property
    def requirements(self) -> Path:
        return self.file

    @property
    def recipe(self) -> Path:
        return self.file.with_suffix(".cmake")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    monkeypatch.setenv("ATOMR_INFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(environments, "HERE", tmp_path / "here")
    file = tmp_path / "small.txt"
    file.write_text("# nothing\n")
    engine = Small(name="small", module="json", cost="nothing", file=file)
    monkeypatch.setitem(ENGINES, "small", engine)
    return engine


def test_what_goes_in_names_it(small: Small) -> None:
    before = small.folder
    small.file.write_text("# something\n")
    with_flags = attrs.evolve(small, environ={"CMAKE_ARGS": "-DX=ON"})
    assert len({before, small.folder, with_flags.folder}) == 3
    assert small.folder == small.folder
    assert small.environ_of_pip() == {}
    assert small.arguments_of_pip() == ()


def test_how_it_is_compiled_names_it_and_not_where_or_by_how_many(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = small.file.with_name("a checkout")
    there = small.file.with_name("another")
    for folder in (here, there):
        folder.mkdir()
        (folder / "small.txt").write_text("# nothing\n")
        (folder / "small.cmake").write_text("set(X OFF)\n")
    flags = {"CMAKE_ARGS": "-DX=ON"}
    one = attrs.evolve(
        small, file=here / "small.txt", environ=flags, project="small_project"
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert one.environ_of_pip() == {
        "CMAKE_ARGS": "-DX=ON "
        + shlex.quote(f"-DCMAKE_PROJECT_small_project_INCLUDE={here}/small.cmake"),
        "CMAKE_BUILD_PARALLEL_LEVEL": "3",
    }
    # Pip would hand out a wheel that another recipe made.
    assert one.arguments_of_pip() == ("--no-cache-dir",)
    assert attrs.evolve(one, arguments=("-x",)).arguments_of_pip()[-1] == "-x"
    key = one.key
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert attrs.evolve(one, file=there / "small.txt").key == key
    (here / "small.cmake").write_text("set(X OFF)\nset(Y OFF)\n")
    of_another = attrs.evolve(one, project="another_project")
    assert len({one.key, key, attrs.evolve(one, project=None).key, of_another.key}) == 4


def test_what_is_compiled_has_a_recipe() -> None:
    assert [engine.name for engine in ENGINES.values() if engine.project] == [
        "llamacpp"
    ]
    assert ENGINES["llamacpp"].recipe.is_file()


def test_what_is_not_made_is_none_and_the_reason_says_how(small: Small) -> None:
    assert interpreter_of("small") is None
    assert how_to_make("small") == (
        "the environment of small is not made; run: make engines ARGS=small"
    )


def test_where_all_are_made_one_that_is_missing_is_no_reason_to_skip(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALL_ARE_MADE, "1")
    with pytest.raises(LookupError, match=f"of small is not made.*{ALL_ARE_MADE}"):
        interpreter_of("small")


@pytest.mark.slow
def test_an_environment_is_made_once_and_has_this_checkout(small: Small) -> None:
    python = make(small)
    assert python == interpreter_of("small")
    at = (small.folder / "made.json").stat().st_mtime_ns
    assert make(small) == python
    assert (small.folder / "made.json").stat().st_mtime_ns == at
    asked = "import atomr_infer._version, atomr_infer_vllm; print(atomr_infer.__file__)"
    said = subprocess.run(
        [python, "-c", asked], capture_output=True, text=True, cwd="/", check=True
    )
    assert Path(said.stdout.strip()) == ROOT / "atomr_infer" / "__init__.py"
    assert others(small) == []
    # What goes in has changed: the old interpreter is not taken for the new one.
    old = small.folder
    small.file.write_text("# something\n")
    assert interpreter_of("small") is None
    assert others(small) == [old]


@pytest.mark.slow
def test_what_cannot_be_made_leaves_nothing_that_looks_made(small: Small) -> None:
    broken = attrs.evolve(small, module="no_such_module_anywhere")
    with pytest.raises(CommandError, match="No module named"):
        make(broken)
    assert not broken.folder.exists()
    assert interpreter_of("small") is None


def test_what_compiles_is_made_beside_what_waits_for_the_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_once = threading.Barrier(2, timeout=60)
    made: list[str] = []

    def making(engine: Engine, *, stop: threading.Event) -> Path:
        if engine.name in {"llamacpp", "tensorrt"}:
            at_once.wait()  # broken where one waits for the other
        made.append(engine.name)
        return Path("python")

    monkeypatch.setattr(command, "make", making)
    assert command.main(["tensorrt", "llamacpp", "ray"]) == 0
    assert sorted(made) == ["llamacpp", "ray", "tensorrt"]
    assert made.index("tensorrt") < made.index("ray")
    assert "make engines: done in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (CommandError("no network"), "make engines: no network\n"),
        (
            OSError(28, "No space left on device"),
            "make engines: [Errno 28] No space left on device\n",
        ),
    ],
)
def test_what_fails_is_told_at_once_and_ends_nothing_that_is_made_beside_it(
    problem: Exception,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = threading.Event()
    made: list[str] = []

    class Errors(io.StringIO):
        def flush(self) -> None:
            if line in self.getvalue():
                told.set()

    def making(engine: Engine, *, stop: threading.Event) -> Path:
        if engine.name == "tensorrt":
            raise problem
        assert told.wait(60), "what failed is told when all has ended"
        made.append(engine.name)
        return Path("python")

    errors = Errors()
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setattr(command, "make", making)
    assert command.main(["tensorrt", "ray", "llamacpp"]) == 1
    assert made == ["llamacpp"]
    assert errors.getvalue() == line
    assert "done" not in capsys.readouterr().out


def test_when_both_fail_both_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def making(engine: Engine, *, stop: threading.Event) -> Path:
        if engine.name == "tensorrt":
            raise OSError(28, "No space left on device")
        raise CommandError("the compiler said so")

    monkeypatch.setattr(command, "make", making)
    assert command.main(["tensorrt", "llamacpp"]) == 1
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "make engines: [Errno 28] No space left on device",
        "make engines: the compiler said so",
    ]


def test_nothing_is_begun_after_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []

    def making(engine: Engine, *, stop: threading.Event) -> Path:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        signal.pthread_kill(main, signal.SIGINT)
        assert stop.wait(60)
        made.append(engine.name)
        return Path("python")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(command, "make", making)
    assert command.main(["tensorrt", "ray"]) == command.INTERRUPTED
    assert made == ["tensorrt"]
    assert signal.getsignal(signal.SIGINT) is before
    said = capsys.readouterr()
    assert said.err == "make engines: interrupted\n"
    assert "done" not in said.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_waits_for_another_one_ends_at_the_first_interrupt(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOMR_INFER_CACHE", str(tmp_path))
    path = ENGINES["ray"].folder.with_suffix(".lock")
    path.parent.mkdir(parents=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(
            [sys.executable, "-m", "tests.engines.make", "ray"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert "waiting for another process" in process.stdout.readline()
                process.send_signal(number)
                out, err = process.communicate(timeout=60)
            finally:
                process.kill()
    assert (process.returncode, out) == (command.INTERRUPTED, "")
    assert err == "make engines: interrupted\n"


def _nobody_writes(reading: int) -> bool:
    """Whether all that could write to a FIFO end, within a minute."""
    poll = select.poll()
    poll.register(reading, 0)
    return poll.poll(60_000) == [(reading, select.POLLHUP)]


@pytest.mark.parametrize("heeds", ["exec sleep 120", "trap '' INT; sleep 120"])
def test_what_is_stopped_ends_with_all_that_it_started(
    heeds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "END_WITHIN_S", 0.2)
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    stop = threading.Event()
    caught: list[BaseException] = []
    quoted = shlex.quote(str(fifo))
    script = f"exec > {quoted}; (trap '' INT; echo; exec sleep 120) & {heeds}"

    def running_it() -> None:
        try:
            run(("/bin/sh", "-c", script), "trying", stop=stop)
        except StoppedError as error:
            caught.append(error)

    thread = threading.Thread(target=running_it)
    thread.start()
    with fifo.open() as alive:
        assert alive.readline() == "\n"
        stop.set()
        assert _nobody_writes(alive.fileno())
    thread.join()
    assert len(caught) == 1


def test_what_took_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    script = f"exec > {shlex.quote(str(fifo))}; sleep 120 & echo; sleep 120"
    with os.fdopen(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)) as alive:
        with pytest.raises(CommandError, match="did not end in"):
            run(("/bin/sh", "-c", script), "trying", longest_s=1.0)
        assert alive.read(1) == "\n"
        assert _nobody_writes(alive.fileno())


def test_who_is_interrupted_while_a_command_runs_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "_await", interrupted)
    ended: list[int | None] = []
    interrupt = running._interrupt

    def watched(process: subprocess.Popen[bytes]) -> None:
        interrupt(process)
        ended.append(process.returncode)

    monkeypatch.setattr(running, "_interrupt", watched)
    with pytest.raises(KeyboardInterrupt):
        run(("/bin/sleep", "600"), "trying")
    assert ended == [-signal.SIGINT]
