"""Secrets come from where the source says, or the error says what to mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.config.secrets import Environ, ReadableSource, resolve
from atomr_infer.errors import MissingSecretError
from atomr_infer.model.secret import EnvSecret, FileSecret, Secret

if TYPE_CHECKING:
    from pathlib import Path


def failure(source: ReadableSource, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(MissingSecretError) as raised:
        resolve(source, environ or {}, deployment="gpt")
    return str(raised.value)


def test_a_variable_s_value_is_the_secret() -> None:
    secret = resolve(EnvSecret("KEY"), {"KEY": "sk-1\n"}, deployment="gpt")

    assert secret == Secret("sk-1")


def test_a_file_s_content_is_the_secret_without_its_newline(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-2\r\n")

    assert resolve(FileSecret(str(file)), {}, deployment="gpt") == Secret("sk-2")


def test_a_secret_is_its_own_source() -> None:
    assert resolve(Secret("sk-3"), {}, deployment="gpt") == Secret("sk-3")


def test_a_variable_that_is_not_set_is_named_with_the_fix() -> None:
    assert failure(EnvSecret("KEY")) == (
        "deployment 'gpt' has no credential: the environment variable KEY is not set; "
        "set it with: export KEY=..."
    )


@pytest.mark.parametrize("value", ["", " \n"])
def test_an_empty_variable_counts_as_missing(value: str) -> None:
    assert failure(EnvSecret("KEY"), {"KEY": value}) == (
        "deployment 'gpt' has no credential: the environment variable KEY is empty; "
        "put the key there"
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "absent"

    assert failure(FileSecret(str(file))) == (
        f"deployment 'gpt' has no credential: the file {file} does not exist; "
        "write the key into it"
    )


def test_an_empty_file_counts_as_missing(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("\n")

    assert failure(FileSecret(str(file))).endswith(
        f"{file} is empty; put the key there"
    )


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert failure(FileSecret(str(tmp_path))) == (
        f"deployment 'gpt' has no credential: the file {tmp_path} cannot be read "
        "(Is a directory); let this user read it"
    )


def test_a_file_that_is_not_text_leaves_no_bytes_in_the_error(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"sk-s3cret\xff")

    with pytest.raises(MissingSecretError, match="is not UTF-8 text") as raised:
        resolve(FileSecret(str(file)), {}, deployment="gpt")

    assert raised.value.__cause__ is None
    assert "s3cret" not in str(raised.value)


def test_an_environment_shows_nothing_and_follows_its_source() -> None:
    variables = {"KEY": "sk-s3cret"}
    environ = Environ(variables)

    assert "s3cret" not in f"{environ} {environ!r} {vars(environ)}"
    assert (environ["KEY"], list(environ), len(environ)) == ("sk-s3cret", ["KEY"], 1)
    variables["OTHER"] = "x"
    assert environ.get("OTHER") == "x"
    assert "ABSENT" not in environ


@pytest.mark.parametrize("path", ["/dev/zero", None])
def test_a_file_without_an_end_is_refused(tmp_path: Path, path: str | None) -> None:
    file = tmp_path / "key"
    file.write_text("k" * 65537)
    source = FileSecret(path or str(file))

    assert failure(source).endswith(
        f"{source.path} is too long; it must hold the key and nothing else"
    )
    file.write_text("k" * 65535 + "\n")
    assert resolve(FileSecret(str(file)), {}, deployment="gpt") == Secret("k" * 65535)
