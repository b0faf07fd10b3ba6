"""``serve`` with a certificate: https from the first byte, or one sentence."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trio
import trustme

from tests.cli.conftest import mock_config, run_command, start_command
from tests.gateway.http import head, parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = 'certificate = "chain.pem"\nprivate_key = "key.pem"'


async def test_a_certificate_in_the_file_is_shown(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "chain.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    config = write(mock_config(gateway=FILES))
    async with start_command("serve", "-c", config, "--bind", "127.0.0.1:0") as command:
        await command.serving()
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", command.port, ssl_context=context, https_compatible=True
        )
        async with stream:
            await stream.send_all(head("GET", "/healthz", 0))
            with trio.fail_after(10):
                answer = parse(b"".join([piece async for piece in stream]))
    assert answer.json == {"status": "alive"}
    assert "anyone who can reach this address" not in command.stdout  # it is ours


async def test_a_certificate_that_is_not_there_is_one_sentence(
    write: Callable[[str], str],
) -> None:
    config = write(mock_config(gateway=FILES))
    status, _, err = await run_command("serve", "-c", config)
    assert status == 1
    assert "cannot serve TLS with certificate" in err
    assert "Traceback" not in err
