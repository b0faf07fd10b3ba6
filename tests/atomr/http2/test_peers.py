"""Peers that others have written: curl, nghttp, hypercorn, and h2 by itself."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config

from atomr.errors import LinkRefusedError
from atomr.http2 import Lane, frames
from atomr.http2.events import StreamData
from atomr.http2.protocol import LinkProtocol
from tests.atomr.http2.conftest import Authority, Get, Shelf, dial, until

if TYPE_CHECKING:
    from tests.atomr.http2.conftest import OpenNode


def curl_speaks_http2() -> bool:
    curl = shutil.which("curl")
    if curl is None:
        return False
    said = subprocess.run(
        [curl, "--version"], capture_output=True, text=True, check=True
    )
    return "HTTP2" in said.stdout


@pytest.mark.skipif(not curl_speaks_http2(), reason="no curl with HTTP/2 here")
@pytest.mark.parametrize("path", ["", "atomr/1/ctl", "atomr/1/stream"])
@pytest.mark.parametrize("version", ["--http2", "--http2-prior-knowledge"])
async def test_curl_with_a_nodes_certificate_finds_nothing(
    open_node: OpenNode, authority: Authority, path: str, version: str
) -> None:
    files = authority.files("a")
    async with open_node("a") as a, open_node("b", {"s": Shelf().service()}) as b:
        link = await dial(a, b)
        ran = await trio.run_process(
            [
                *("curl", version, "--silent", "--insecure", "--max-time", "60"),
                *("--cert", str(files.certificate), "--key", str(files.key)),
                *("--write-out", "%{http_version} %{http_code}"),
                f"https://127.0.0.1:{b.port}/{path}",
            ],
            capture_stdout=True,
            check=False,
        )
        if path == "atomr/1/ctl":
            # It opens the lane, says no hello, and is dropped in the handshake.
            assert ran.returncode != 0
        else:
            assert ran.stdout == b"2 404"
        await until(lambda: b.refused)
        assert b.refused[0] in {"peer_closed", "malformed"}
        assert await link.call("s", Get("x"), returns=int | None) is None


@pytest.mark.skipif(not curl_speaks_http2(), reason="no curl with HTTP/2 here")
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(["--http1.1"], id="another protocol"),
        pytest.param(["--tls-max", "1.2", "--http2"], id="another TLS"),
        pytest.param(
            ["--http2", "-X", "POST", "-T", "/dev/zero"], id="a body for ever"
        ),
    ],
)
async def test_curl_that_asks_for_something_else_is_let_go(
    open_node: OpenNode, authority: Authority, given: list[str]
) -> None:
    files = authority.files("a")
    async with open_node("a") as a, open_node("b", {"s": Shelf().service()}) as b:
        link = await dial(a, b)
        ran = await trio.run_process(
            [
                *("curl", "--silent", "--insecure", "--max-time", "3", *given),
                *("--cert", str(files.certificate), "--key", str(files.key)),
                *("--write-out", "%{http_code}", "--output", "/dev/null"),
                f"https://127.0.0.1:{b.port}/atomr/1/stream",
            ],
            capture_stdout=True,
            check=False,
        )
        assert ran.returncode != 0 or ran.stdout == b"404"
        await until(lambda: b.refused)
        assert await link.call("s", Get("x"), returns=int | None) is None


@pytest.mark.skipif(shutil.which("nghttp") is None, reason="no nghttp here")
async def test_nghttp_with_a_nodes_certificate_finds_nothing(
    open_node: OpenNode, authority: Authority
) -> None:
    files = authority.files("a")
    async with open_node("b") as b:
        ran = await trio.run_process(
            [
                *("nghttp", "--stat", "--timeout=5s"),
                *(f"--cert={files.certificate}", f"--key={files.key}"),
                f"https://127.0.0.1:{b.port}/",
                f"https://127.0.0.1:{b.port}/other",
            ],
            capture_stdout=True,
            capture_stderr=True,
        )
        assert ran.stdout.count(b" 404 ") == 2
        await until(lambda: b.refused)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="no h2load here")
async def test_h2load_does_not_disturb_a_link(
    open_node: OpenNode, authority: Authority
) -> None:
    async with open_node("a") as a, open_node("b", {"s": Shelf().service()}) as b:
        link = await dial(a, b)
        ran = await trio.run_process(
            [
                *("h2load", "-n", "2000", "-c", "4", "-m", "32"),
                f"https://127.0.0.1:{b.port}/",
            ],
            capture_stdout=True,
            check=False,
        )
        # It has no certificate: not one request gets through.
        assert b"0 succeeded" in ran.stdout
        assert await link.call("s", Get("x"), returns=int | None) is None


async def test_a_server_that_is_no_node_is_refused(
    open_node: OpenNode, authority: Authority
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError  # which says that there is no lifespan
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"no such page"})

    files = authority.files("b")
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.certfile, config.keyfile = str(files.certificate), str(files.key)
    config.ca_certs, config.verify_mode = str(files.ca), ssl.CERT_REQUIRED
    config.errorlog = None
    async with trio.open_nursery() as nursery:
        [url] = await nursery.start(hypercorn.trio.serve, app, config)
        async with open_node("a") as a:
            with pytest.raises(LinkRefusedError) as caught:
                await a.links.dial("b", "127.0.0.1", int(url.rpartition(":")[2]))
            assert caught.value.reason == "malformed"
            assert caught.value.detail == "it speaks HTTP/2, and is no node"
        nursery.cancel_scope.cancel()


class Plain:
    """A peer that is h2 and nothing of ours, and keeps to every window."""

    def __init__(self, *, window_bytes: int = 65_535) -> None:
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True)
        )
        self.h2.initiate_connection()
        self.h2.update_settings(
            {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window_bytes}
        )
        self.node = LinkProtocol(dialed=False, now_s=0.0)
        self.heard: list[Any] = []
        self.got: dict[int, bytes] = {}
        for lane in Lane:
            self.open(lane, f"/atomr/1/{lane.name.lower()}")
        self.move()

    def open(self, stream_id: int, path: str) -> None:
        self.h2.send_headers(
            stream_id,
            [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "node"),
                (":path", path),
            ],
        )

    def move(self) -> None:
        """Exchange bytes until both are silent."""
        moved = True
        while moved:
            data = self.h2.data_to_send()
            self.heard += self.node.receive(data, now_s=0.0) if data else []
            answer = self.node.data_to_send(65_536)
            for event in self.h2.receive_data(answer) if answer else []:
                self.take(event)
            moved = bool(data or answer)

    def take(self, event: Any) -> None:
        if isinstance(event, h2.events.DataReceived):
            self.got[event.stream_id] = self.got.get(event.stream_id, b"") + event.data
            self.h2.acknowledge_received_data(
                event.flow_controlled_length, event.stream_id
            )

    def send(self, stream_id: int, data: bytes, **options: Any) -> None:
        while data:
            room = self.h2.local_flow_control_window(stream_id)
            padding = 1 + (options.get("pad_length") or 0)
            most = min(room, self.h2.max_outbound_frame_size) - padding
            size = min(most, len(data))
            assert size > 0, "no window was opened"
            self.h2.send_data(stream_id, data[:size], **options)
            data = data[size:]
            self.move()


def test_plain_h2_sends_megabytes_on_a_lane() -> None:
    plain = Plain()
    body = frames.raw("x" * 100_000)
    for _ in range(100):
        buffer = bytearray()
        frames.append(buffer, frames.Tell("s", body))
        plain.send(Lane.MSG, bytes(buffer))
    assert len([e for e in plain.heard if isinstance(e, frames.Tell)]) == 100


@pytest.mark.parametrize("pad", [None, 0, 200])
def test_plain_h2_sends_a_stream_with_padding_and_an_end(pad: int | None) -> None:
    plain = Plain()
    plain.open(7, "/atomr/1/stream")
    plain.send(7, b"x" * 500_000, pad_length=pad)
    data = [e for e in plain.heard if isinstance(e, StreamData)]
    assert b"".join(e.data for e in data) == b"x" * 500_000
    plain.h2.end_stream(7)
    plain.move()
    assert plain.heard[-1].stream_id == 7


@pytest.mark.parametrize("window_bytes", [1, 1000, 65_535, 10_000_000])
def test_plain_h2_gets_what_its_windows_let_through(window_bytes: int) -> None:
    plain = Plain(window_bytes=window_bytes)
    size = 2000 if window_bytes == 1 else 3_000_000
    plain.open(7, "/atomr/1/stream")
    plain.move()
    plain.node.outlets.own[7].buffer += b"y" * size
    plain.node.outlets.own[7].ending = True
    plain.move()
    assert plain.got[7] == b"y" * size


def test_plain_h2_may_change_its_windows_in_the_middle() -> None:
    plain = Plain()
    plain.open(7, "/atomr/1/stream")
    plain.move()
    plain.node.outlets.own[7].buffer += b"y" * 200_000
    data = plain.node.data_to_send(30_000)
    for size in (10, 500_000):
        codes = h2.settings.SettingCodes
        plain.h2.update_settings({codes.INITIAL_WINDOW_SIZE: size})
        plain.node.receive(plain.h2.data_to_send(), now_s=0.0)
    for event in plain.h2.receive_data(data):
        plain.take(event)
    plain.move()
    assert plain.got[7] == b"y" * 200_000


def test_plain_h2_gets_a_404_for_what_is_no_stream_of_a_node() -> None:
    plain = Plain()
    statuses = []

    def take(event: Any) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            statuses.append(dict(event.headers)[b":status"])

    plain.take = take  # type: ignore[method-assign]
    plain.open(7, "/v1/chat/completions")
    plain.h2.send_data(7, b"x" * 10_000)
    plain.move()
    assert statuses == [b"404"]
