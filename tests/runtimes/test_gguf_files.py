"""Which GGUF files are one model, and which of a hub's is fetched."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.runtimes.gguf_files import first_part, parts_of, usual_gguf
from atomr_infer.runtimes.hub.fetching import Hub, fetch_model
from atomr_infer.runtimes.hub.names import parse_hub_model
from tests.runtimes.fake_hub import COMMIT, REPO, FakeHub, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from atomr_infer.runtimes.contract import Progress

PARTS = [f"big-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
GGUF = (".gguf",)


def ignore(_: Progress) -> None:
    """Take progress that nobody shows."""


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with serving(FakeHub({part: part.encode() for part in PARTS})) as hub:
        yield hub


@pytest.fixture
def hub(fake: FakeHub, tmp_path: Path) -> Hub:
    return Hub(endpoint=fake.url, folder=tmp_path, pause_s=0.0)


def fetch(hub: Hub, rest: str = "") -> str:
    """Return where a model is, below the repository's top."""
    found = fetch_model(hub, parse_hub_model(f"hf:{REPO}{rest}"), GGUF, ignore)
    return found.relative_to(_top(hub)).as_posix()


def here(hub: Hub) -> list[str]:
    return sorted(f.relative_to(_top(hub)).as_posix() for f in _top(hub).rglob("*.g*"))


def _top(hub: Hub) -> Path:
    return hub.folder / "org--tiny" / COMMIT


def offline(hub: Hub) -> Hub:
    return attrs.evolve(hub, is_offline=True)


@pytest.mark.parametrize(
    "name",
    [
        "m.gguf",
        "m-00001-of-00003.safetensors",
        "m-00000-of-00003.gguf",
        "m-00004-of-00003.gguf",
        "m-1-of-3.gguf",
        "-00001-of-00003.gguf",
    ],
)
def test_a_file_that_is_no_part_is_a_model(name: str) -> None:
    assert parts_of(name) == (name,)


def test_other_parts_are_called_as_the_one_is() -> None:
    parts = ("M-00001-OF-00002.GGUF", "M-00002-OF-00002.GGUF")
    assert parts_of(parts[0]) == parts_of(parts[1]) == parts


def test_a_count_that_no_model_has_is_refused_and_costs_nothing(tmp_path: Path) -> None:
    names = [f"m{i}-00001-of-99999.gguf" for i in range(200)]
    began = time.process_time()
    with pytest.raises(ConfigError, match="there are several"):
        usual_gguf(names)
    assert usual_gguf(names[:1]) == (names[0], ())
    with pytest.raises(ConfigError, match="one of 99999 parts, and a model of more"):
        parts_of(names[0])
    with pytest.raises(ConfigError, match="one of 99999 parts, and a model of more"):
        first_part(tmp_path / names[0])
    assert time.process_time() - began < 5.0


def test_of_many_missing_parts_some_are_named(
    fake: FakeHub, hub: Hub, tmp_path: Path
) -> None:
    name = "m-00002-of-00900.gguf"
    (tmp_path / name).touch()
    fake.files = {name: b"2"}
    for look in (lambda: first_part(tmp_path / name), lambda: fetch(hub, f"/{name}")):
        with pytest.raises(ConfigError) as caught:
            look()
        assert str(caught.value).endswith(
            "m-00001-of-00900.gguf, m-00003-of-00900.gguf, m-00004-of-00900.gguf, "
            "m-00005-of-00900.gguf, m-00006-of-00900.gguf and 894 more"
        )


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    first, second, third = (tmp_path / part for part in PARTS)
    second.touch()
    with pytest.raises(ConfigError, match=r"there is no model file '.*/big-00001-of"):
        first_part(first)
    with pytest.raises(ConfigError) as caught:
        first_part(second)
    assert str(caught.value) == (
        f"the model file '{second}' is one of 3 parts, and beside it there is no "
        "big-00001-of-00003.gguf, big-00003-of-00003.gguf"
    )
    first.touch()
    third.touch()
    assert [first_part(part) for part in (first, second, third)] == [first] * 3


@pytest.mark.parametrize("part", PARTS)
def test_all_parts_of_a_hub_s_model_are_fetched(
    fake: FakeHub, hub: Hub, part: str
) -> None:
    assert fetch(hub, f"/{part}") == PARTS[0]
    assert here(hub) == PARTS
    fake.asked.clear()
    # It is known by each of them, and as the only model that is there.
    for asked in ("", *(f"/{other}" for other in PARTS)):
        assert fetch(offline(hub), asked) == PARTS[0]
        assert fetch(hub, asked) == PARTS[0]
    assert not [path for path, _, _ in fake.asked if "/resolve/" in path]


def test_a_part_that_an_earlier_release_took_for_all_is_not_the_model(
    fake: FakeHub, hub: Hub
) -> None:
    _top(hub).mkdir(parents=True)
    (_top(hub) / PARTS[0]).write_bytes(fake.files[PARTS[0]])
    notes = [PARTS[0], f"/{PARTS[0]}//.gguf=//{PARTS[0]}"]
    (_top(hub) / ".whole").write_text("\n".join(notes))
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(attrs.evolve(offline(hub)), f"@{COMMIT}/{PARTS[0]}")
    assert fetch(hub, f"/{PARTS[0]}") == PARTS[0]
    assert here(hub) == PARTS


def test_a_part_that_the_hub_lacks_is_named(fake: FakeHub, hub: Hub) -> None:
    del fake.files[PARTS[1]]
    with pytest.raises(ConfigError) as caught:
        fetch(hub, f"/{PARTS[2]}")
    assert str(caught.value) == (
        "'org/tiny' has 'big-00003-of-00003.gguf', which is one of 3 parts, and lacks "
        "big-00002-of-00003.gguf"
    )
    assert here(hub) == []


def test_the_only_model_of_a_repository_or_a_folder_needs_no_name(
    fake: FakeHub, hub: Hub
) -> None:
    fake.files = {"m-Q8_0.gguf": b"8", "mmproj-F16.gguf": b"m", "config.json": b"{}"}
    assert fetch(hub) == "m-Q8_0.gguf"
    assert here(hub) == ["m-Q8_0.gguf"]
    assert fetch(offline(hub)) == "m-Q8_0.gguf"


def test_a_folder_that_an_earlier_release_noted_is_no_file(
    fake: FakeHub, hub: Hub
) -> None:
    fake.files = {"m.gguf": b"8"}
    assert fetch(hub, "/m.gguf") == "m.gguf"
    whole = _top(hub) / ".whole"
    whole.write_text("///.gguf=//\nm.gguf")
    with pytest.raises(EngineStartError, match="is not in the cache"):
        fetch(offline(hub))
    assert fetch(hub) == fetch(offline(hub)) == "m.gguf"


def test_of_several_the_usual_quantization_is_taken_and_the_others_are_told(
    fake: FakeHub, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    inside = {f"Q6/{part}": b"6" for part in PARTS}
    fake.files = {"m-q4_k_m.gguf": b"4", "m-Q8_0.gguf": b"8", **inside}
    with caplog.at_level(logging.INFO):
        assert fetch(hub) == "m-q4_k_m.gguf"
    assert caplog.messages == [
        "org/tiny has several .gguf files; m-q4_k_m.gguf is taken, and not "
        "Q6/big-00001-of-00003.gguf, m-Q8_0.gguf; for another one, name it: "
        "model = 'hf:org/tiny/Q6/big-00001-of-00003.gguf'"
    ]
    assert here(hub) == ["m-q4_k_m.gguf"]
    assert fetch(hub, "/Q6") == f"Q6/{PARTS[0]}"
    assert fetch(offline(hub), "/Q6") == f"Q6/{PARTS[0]}"


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["a-Q8_0.gguf", "a-Q5_0.gguf"], "and none of them in Q4_K_M; name one"),
        (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], "and several of them in Q4_K_M; name one"),
        (["mmproj.gguf"], "there is no .gguf file with a model"),
    ],
)
def test_where_it_is_not_clear_a_name_is_asked_for(paths: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        usual_gguf(paths)
