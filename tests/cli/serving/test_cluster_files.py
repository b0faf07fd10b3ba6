"""What ``check`` says of the files of ``[cluster]``."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

import pytest

from atomr_infer.cli.certificates import make_folder
from atomr_infer.cli.check import checked
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = """\
[[deployment]]
name = "m"
runtime = "mock"
[node]
name = "a"
[cluster]
name = "dev"
voters = ["a"]
cookie = { file = "cookie" }
ca = "ca.pem"
certificate = "a.pem"
private_key = "a.key"
"""
LINES = {"cookie": 9, "ca": 10, "certificate": 11, "private_key": 12}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    make_folder(tmp_path, cluster="dev", nodes=("a", "b"), days=90)
    cookie = tmp_path / "cookie"
    cookie.touch(mode=0o600)
    cookie.write_text("a secret of all nodes")
    path = tmp_path / "atomr.toml"
    path.write_text(CONFIG)
    return path


def test_files_that_fit_are_told_with_the_day_on_which_they_end(config: Path) -> None:
    [note] = checked(config).notices
    day = dt.datetime.now(dt.UTC) + dt.timedelta(days=90)
    told = re.fullmatch(
        r"this node's certificate expires on (\S+), in (89|90) days", note
    )
    assert told is not None, note
    assert abs((dt.datetime.fromisoformat(told[1] + "T00Z") - day).days) <= 2


def test_a_cookie_that_others_may_read_is_told_of(config: Path) -> None:
    cookie = config.parent / "cookie"
    cookie.chmod(0o644)
    assert checked(config).notices[0] == (
        "the cookie of the cluster is open to every user of this machine "
        f"({cookie} has mode 0644): chmod 600 {cookie}"
    )


def test_a_model_that_is_not_here_may_be_on_another_node(config: Path) -> None:
    text = CONFIG.replace('"mock"', '"ort"\nmodel = "/no/such"')
    config.write_text(text)
    assert (
        "deployment 'm': there is no '/no/such' here; a node that loads it needs it"
        in (checked(config).notices)
    )


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def swap(one: str, other: str) -> Callable[[Path], object]:
    return lambda folder: (folder / other).replace(folder / one)


def another_authority(folder: Path) -> None:
    make_folder(folder / "other", cluster="dev", nodes=("a",))
    (folder / "other" / "ca.pem").replace(folder / "ca.pem")


WRONG: list[tuple[Callable[[Path], object], str, str]] = [
    (lambda f: (f / "cookie").unlink(), "cookie", "does not exist"),
    (write("cookie", "short"), "cookie", "cookie of 5 bytes"),
    (lambda f: (f / "ca.pem").unlink(), "ca", "cannot be read (No such file"),
    (write("ca.pem", "x"), "ca", "holds no certificate"),
    (lambda f: (f / "a.pem").unlink(), "certificate", "cannot be read (No such"),
    (write("a.pem", "x"), "certificate", "no certificate in"),
    (another_authority, "certificate", "is not signed by the authority in ca"),
    (lambda f: (f / "a.key").unlink(), "private_key", "cannot be read (No such"),
    (swap("a.key", "b.key"), "private_key", "is not the key of the certificate"),
]


@pytest.mark.parametrize(
    ("spoil", "key", "problem"), WRONG, ids=[f"{w[1]} {n}" for n, w in enumerate(WRONG)]
)
def test_a_file_that_does_not_fit_is_told_with_the_line_of_its_key(
    config: Path, spoil: Callable[[Path], object], key: str, problem: str
) -> None:
    spoil(config.parent)
    with pytest.raises(ConfigError) as caught:
        checked(config)
    assert problem in caught.value.message
    assert (caught.value.path, caught.value.line) == (str(config), LINES[key])


def test_a_certificate_of_another_node_is_told_with_both_names(config: Path) -> None:
    for kind in ("pem", "key"):
        (config.parent / f"b.{kind}").replace(config.parent / f"a.{kind}")
    with pytest.raises(ConfigError, match=r"names .*dev/b, and this node is .*dev/a"):
        checked(config)
