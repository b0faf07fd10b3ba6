"""Values that no person writes by hand still get one clear sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.config.load import load_config
from atomr_infer.config.secrets import resolve
from atomr_infer.errors import ConfigError, MissingSecretError
from atomr_infer.model.secret import FileSecret

if TYPE_CHECKING:
    from pathlib import Path

DEPLOYMENT = '[[deployment]]\nname = "m"\nruntime = "mock"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            DEPLOYMENT + "[deployment.timeouts]\nload_s = 1" + "0" * 400,
            "load_s: a number of more than 30 digits is too large",
        ),
        (
            DEPLOYMENT + "[deployment.timeouts]\nload_s = " + "9" * 5000,
            "holds a number that is too long",
        ),
        (DEPLOYMENT + "x = " + "[" * 3000 + "]" * 3000, "is nested too deeply"),
        ('[gateway]\nbind = "h:' + "1" * 5000 + '"', "is not an address"),
    ],
    ids=["400 digits", "5000 digits", "nesting", "port"],
)
def test_it_is_a_config_error(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert len(str(caught.value)) < 600


def test_a_path_with_a_nul_is_no_path() -> None:
    with pytest.raises(MissingSecretError, match="is no path"):
        resolve(FileSecret("a\0b"), {}, deployment="m")
