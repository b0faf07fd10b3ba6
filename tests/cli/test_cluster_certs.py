"""``cluster certs``: an authority and certificates that nodes believe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr.crdt.origin import Origin
from atomr.errors import LinkRefusedError
from atomr.http2 import Credentials, LinkOptions, open_links
from atomr_infer.cli import certificates
from atomr_infer.errors import ConfigError
from tests.cli.conftest import run_command

if TYPE_CHECKING:
    from pathlib import Path


def credentials(folder: Path, node: str) -> Credentials:
    return Credentials.load(
        ca_file=folder / "ca.pem",
        certificate_file=folder / f"{node}.pem",
        key_file=folder / f"{node}.key",
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def modes(folder: Path) -> dict[str, str]:
    return {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir()}


async def test_nodes_believe_each_other_with_what_it_makes(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    code, out, err = await run_command(
        "cluster", "certs", "--cluster", "dev", "--dir", str(folder), "a", "b"
    )
    assert (code, err) == (0, "")
    assert out == "".join(f"made {folder}/{name}.pem\n" for name in ("ca", "a", "b"))
    assert modes(folder) == {
        f"{name}.{kind}": "0o600"
        for name in ("ca", "a", "b")
        for kind in ("pem", "key")
    }
    cookie = b"a cookie of 16 bytes"
    options = [
        LinkOptions("dev", Origin(name, 1), cookie, credentials(folder, name))
        for name in ("a", "b")
    ]
    async with open_links(options[0]) as a, open_links(options[1]) as b:
        port = await b.listen("127.0.0.1", 0)
        link = await a.dial("b", "127.0.0.1", port)
        assert link.peer == Origin("b", 1)
        # And a certificate is worth nothing under another name.
        with pytest.raises(LinkRefusedError):
            await a.dial("c", "127.0.0.1", port)


async def test_a_second_run_adds_a_node_and_keeps_the_rest(tmp_path: Path) -> None:
    base = ("cluster", "certs", "--cluster", "dev", "--dir", str(tmp_path))
    await run_command(*base, "a")
    before = contents(tmp_path)
    code, out, _ = await run_command(*base, "a", "b")
    assert code == 0
    assert (
        out == f"kept {tmp_path}/ca.pem\nkept {tmp_path}/a.pem\nmade {tmp_path}/b.pem\n"
    )
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"b.pem", "b.key"}


def test_what_is_about_to_expire_or_is_broken_is_made_again(tmp_path: Path) -> None:
    def run() -> list[bool]:
        made = certificates.make_folder(tmp_path, cluster="dev", nodes=("a",))
        return [each.is_new for each in made]

    assert run() == [True, True]
    assert run() == [False, False]
    authority = certificates.Pem(
        (tmp_path / "ca.pem").read_bytes(), (tmp_path / "ca.key").read_bytes()
    )
    for uri, days in (("node:dev/a", -1), ("node:dev/b", 9), ("node:prod/a", 9)):
        other = certificates.make_node(authority, uri, days=days)
        (tmp_path / "a.pem").write_bytes(other.certificate)
        assert run() == [False, True]
    stranger = certificates.make_authority("dev")
    other = certificates.make_node(stranger, "node:dev/a")
    (tmp_path / "a.pem").write_bytes(other.certificate)
    assert run() == [False, True]
    (tmp_path / "a.pem").write_text("no certificate")
    assert run() == [False, True]
    (tmp_path / "a.key").unlink()
    assert run() == [False, True]
    assert credentials(tmp_path, "a").certificate


@pytest.mark.parametrize("missing", ["ca.pem", "ca.key"])
async def test_half_an_authority_is_not_overwritten(
    tmp_path: Path, missing: str
) -> None:
    base = ("cluster", "certs", "--cluster", "dev", "--dir", str(tmp_path), "a")
    await run_command(*base)
    (tmp_path / missing).unlink()
    before = contents(tmp_path)
    code, out, err = await run_command(*base)
    assert (code, out) == (1, "")
    assert f"{tmp_path / missing} is not; an authority is not overwritten" in err
    assert contents(tmp_path) == before


def test_the_authority_of_another_cluster_signs_nothing(tmp_path: Path) -> None:
    certificates.make_folder(tmp_path, cluster="dev", nodes=("a",))
    with pytest.raises(ConfigError, match="not of 'prod'; use another folder"):
        certificates.make_folder(tmp_path, cluster="prod", nodes=("a",))


@pytest.mark.parametrize(
    ("nodes", "cluster", "said"),
    [
        (("a/b",), "dev", "node 'a/b': expected up to 128"),
        (("../a",), "dev", "node '../a': expected up to 128"),
        (("a",), "d v", "cluster 'd v': expected up to 128"),
        (("ca",), "dev", "no node can be called 'ca'"),
    ],
)
def test_names_that_fit_in_no_certificate_make_no_file(
    tmp_path: Path, nodes: tuple[str, ...], cluster: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        certificates.make_folder(tmp_path / "new", cluster=cluster, nodes=nodes)
    assert not (tmp_path / "new").exists()


async def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "certs")
    code, _, err = await run_command(
        "cluster", "certs", "--cluster", "dev", "--dir", folder, "a"
    )
    assert code == 1
    assert err.startswith("atomr-infer: cannot write certificates: ")
    assert "Traceback" not in err


async def test_help_of_certs_shows_examples() -> None:
    code, out, err = await run_command("cluster", "certs", "--help")
    assert (code, err) == (0, "")
    for option in ("--cluster NAME", "--dir FOLDER", "--days", "NODE..."):
        assert option in out
    lines = [line.strip() for line in out.splitlines()]
    examples = lines[lines.index("Examples:") + 1 :][:2]
    assert examples == [
        "atomr-infer cluster certs --cluster prod ams-1 ams-2 fra-1",
        "atomr-infer cluster certs --cluster dev --dir /etc/atomr --days 30 laptop",
    ]


async def test_certificates_are_what_openssl_accepts(tmp_path: Path) -> None:
    certificates.make_folder(tmp_path, cluster="dev", nodes=("a",))
    ran = await trio.run_process(
        [
            *("openssl", "verify", "-x509_strict", "-purpose", "sslserver"),
            *("-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "a.pem")),
        ],
        capture_stdout=True,
    )
    assert ran.stdout.endswith(b": OK\n")
