"""What the network does to a model on its way is told from what the disk does."""

from __future__ import annotations

import logging
import ssl
import traceback
from typing import TYPE_CHECKING

import pytest
import trustme

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.model.secret import Secret
from atomr_infer.runtimes.hub.fetching import Hub, fetch_model
from atomr_infer.runtimes.hub.names import HubModel
from tests.runtimes.fake_hub import COMMIT, REPO, FakeHub, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from atomr_infer.runtimes.contract import Progress

WEIGHTS = bytes(range(256)) * 1000
ENDING = (".safetensors",)


def ignore(_: Progress) -> None:
    """Take progress that nobody shows."""


def fetch(fake: FakeHub, folder: Path) -> bytes:
    hub = Hub(endpoint=fake.url, folder=folder, pause_s=0.0)
    found = fetch_model(hub, HubModel(REPO), ENDING, ignore)
    return (found / "model.safetensors").read_bytes()


def ranges(fake: FakeHub) -> list[str | None]:
    return [asked for path, asked, _ in fake.asked if "/resolve/" in path]


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with serving(FakeHub({"model.safetensors": WEIGHTS})) as hub:
        yield hub


@pytest.fixture
def over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with serving(FakeHub({"model.safetensors": WEIGHTS}), context) as hub:
        yield hub


def test_what_tls_says_in_the_middle_of_a_file_is_the_network_s(
    over_tls: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    over_tls.cuts, over_tls.garbage = [100_000], True
    with caplog.at_level(logging.WARNING):
        assert fetch(over_tls, tmp_path / "cache") == WEIGHTS
    # What had come was kept.
    assert ranges(over_tls) == [None, "bytes=100000-"]
    assert "cut off; it goes on from there: the model hub localhost:" in caplog.text
    assert "SSLError" in caplog.text


def test_a_tls_error_that_stays_names_the_hub_and_not_the_cache(
    over_tls: FakeHub, tmp_path: Path
) -> None:
    over_tls.cuts, over_tls.garbage = [0] * 9, True
    with pytest.raises(EngineStartError) as caught:
        fetch(over_tls, tmp_path / "cache")
    assert "the model hub localhost:" in caught.value.message
    assert "cannot be reached: SSLError(" in caught.value.message
    assert "cannot be used" not in caught.value.message
    assert len(ranges(over_tls)) == 5


def test_tries_that_bring_something_are_not_counted(
    fake: FakeHub, tmp_path: Path
) -> None:
    fake.cuts = [1000] * 20
    assert fetch(fake, tmp_path) == WEIGHTS
    assert ranges(fake) == [None, *(f"bytes={n}000-" for n in range(1, 21))]


def test_five_tries_in_a_row_that_bring_nothing_are_the_last(
    fake: FakeHub, tmp_path: Path
) -> None:
    fake.cuts = [0, 0, 0, 0, 1000, 0, 0, 0, 0, 0]
    with pytest.raises(EngineStartError, match="it sent 1000 of 256000 bytes"):
        fetch(fake, tmp_path)
    assert len(ranges(fake)) == 10
    assert fake.cuts == []


def test_a_hub_that_begins_anew_each_time_makes_progress_only_beyond_the_most(
    fake: FakeHub, tmp_path: Path
) -> None:
    fake.no_range = True
    fake.cuts = [2000, 1000, 1500, 2000, 1999, 1]
    with pytest.raises(EngineStartError, match="it sent 1 of 256000 bytes"):
        fetch(fake, tmp_path)
    assert fake.cuts == []


def test_a_cache_that_cannot_be_written_is_no_matter_of_the_network(
    fake: FakeHub, tmp_path: Path
) -> None:
    home = tmp_path / "org--tiny" / COMMIT
    (home / "model.safetensors.partial").mkdir(parents=True)
    with pytest.raises(EngineStartError, match=r"cannot be used: .*Is a directory"):
        fetch(fake, tmp_path)
    assert len(ranges(fake)) == 1


@pytest.mark.parametrize(
    "instead", [b'{"sha": "0123', b"", b"<html>log in</html>", b"[" * 100_000]
)
@pytest.mark.parametrize("path", ["revision", "tree"])
def test_what_is_no_answer_of_the_hub_s_is_no_obstacle_to_what_is_here(
    fake: FakeHub, tmp_path: Path, instead: bytes, path: str
) -> None:
    """Such as one that was cut off, or a page to log in of a network."""
    assert fetch(fake, tmp_path) == WEIGHTS
    if path == "tree":
        note = tmp_path / "org--tiny" / COMMIT / ".whole"
        # As an earlier release noted it: the hub is asked for its list again.
        note.write_text("///.safetensors//\nmodel.safetensors")
    fake.instead[path] = instead or b" "
    assert fetch(fake, tmp_path) == WEIGHTS
    with pytest.raises(EngineStartError, match="its answer is no JSON, and begins"):
        fetch(fake, tmp_path / "empty")


def test_all_pages_of_a_list_are_asked_for(fake: FakeHub, tmp_path: Path) -> None:
    fake.files |= {f"{n}.safetensors": b"x" for n in range(5)}
    fake.page = 2
    fetch(fake, tmp_path)
    top = tmp_path / "org--tiny" / COMMIT
    assert {file.name for file in top.iterdir()} == {".whole", *fake.files}
    asked = [path.rpartition("true")[2] for path, _, _ in fake.asked if "tree" in path]
    assert asked == ["", "&cursor=2", "&cursor=4"]


def test_a_list_that_goes_on_elsewhere_is_refused(
    fake: FakeHub, tmp_path: Path
) -> None:
    fake.files |= {"more.safetensors": b"x"}
    fake.page, fake.next_at = 1, fake.url.replace("127.0.0.1", "localhost")
    with pytest.raises(EngineStartError) as caught:
        fetch(fake, tmp_path)
    assert "the list of files of 'org/tiny' goes on at 'http://localhost:" in (
        caught.value.message
    )
    assert "if HF_ENDPOINT names a mirror, name another" in caught.value.message


def test_a_list_without_an_end_is_refused(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atomr_infer.runtimes.hub.http._MAX_PAGES", 3)
    fake.files |= {f"{n}.safetensors": b"x" for n in range(3)}
    fake.page = 1
    with pytest.raises(EngineStartError, match="goes on after 3 pages"):
        fetch(fake, tmp_path)
    assert len([path for path, _, _ in fake.asked if "tree" in path]) == 3


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("hf_sec\nret", "has a line break in it; write it on one line"),
        ("hf_sec\rret", "has a line break in it; write it on one line"),
        ("hf_secrét\u20ac", "a character in it that is not in ASCII"),
        ("hf_sec\0ret", "a character in it that is not in ASCII, or is not printed"),
    ],
)
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(
    fake: FakeHub, tmp_path: Path, token: str, problem: str
) -> None:
    hub = Hub(fake.url, tmp_path, Secret(token))
    with pytest.raises(ConfigError, match=problem) as caught:
        fetch_model(hub, HubModel(REPO), ENDING, ignore)
    assert "the deployment's credential" in caught.value.message
    told = "".join(traceback.format_exception(caught.value))
    assert "hf_sec" not in told
    assert fake.asked == []
