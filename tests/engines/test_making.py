"""Environments of engines: made once, whole, and by one at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import attrs
import pytest

from tests.engines import environments
from tests.engines import make as command
from tests.engines.environments import (
    ENGINES,
    Engine,
    how_to_make,
    interpreter_of,
    make,
    others,
)
from tests.engines.running import CommandError, locked, run


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
    spared = attrs.evolve(with_flags, spared={"CMAKE_ARGS": "-DY=OFF"})
    assert spared.folder == with_flags.folder
    assert spared.environ_of_pip() == {"CMAKE_ARGS": "-DX=ON -DY=OFF"}
    assert small.folder == small.folder


def test_what_is_not_made_is_none_and_the_reason_says_how(small: Small) -> None:
    assert interpreter_of("small") is None
    assert how_to_make("small") == (
        "the environment of small is not made; run: make engines ARGS=small"
    )


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
    root = Path(__file__).parents[2]
    assert Path(said.stdout.strip()) == root / "atomr_infer" / "__init__.py"
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

    def making(engine: Engine) -> Path:
        if engine.name in {"llamacpp", "tensorrt"}:
            at_once.wait()  # broken where one waits for the other
        made.append(engine.name)
        return Path("python")

    monkeypatch.setattr(command, "make", making)
    assert command.main(["tensorrt", "llamacpp", "ray"]) == 0
    assert sorted(made) == ["llamacpp", "ray", "tensorrt"]
    assert made.index("tensorrt") < made.index("ray")
    assert "make engines: done in" in capsys.readouterr().out


def test_what_fails_is_told_and_ends_nothing_that_is_made_beside_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []

    def making(engine: Engine) -> Path:
        if engine.name == "tensorrt":
            raise CommandError("no network")
        made.append(engine.name)
        return Path("python")

    monkeypatch.setattr(command, "make", making)
    assert command.main(["tensorrt", "ray", "llamacpp"]) == 1
    assert made == ["llamacpp"]
    said = capsys.readouterr()
    assert said.err == "make engines: no network\n"
    assert "done" not in said.out
