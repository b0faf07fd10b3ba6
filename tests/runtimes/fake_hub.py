"""A model hub on a loopback port: what it has, and how it misbehaves."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import attrs

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

COMMIT = "0123456789" * 4
REPO = "org/tiny"


@attrs.define
class FakeHub:
    """What a hub has.

    Attributes:
        files: content by path.
        token: what opens it; None: everybody may ask.
        cuts: after how many bytes the next files are cut off.
        garbage: whether such a cut comes as bytes that are no TLS.
        damage: paths whose content is not what the list says.
        more: bytes that are sent behind each file.
        no_range: whether it sends a file whole, whatever is asked.
        elsewhere: where files are sent from; "": from here.
        entries: what stands in the list besides.
        commit: what the branch ``main`` is.
        page: how many files stand on a page of the list; 0: all.
        next_at: where the list goes on; "": here.
        instead: what is sent for its JSON, by ``revision`` and ``tree``.
        asked: path, range and authorization of each request.
        url: where it is.
    """

    files: dict[str, bytes]
    token: str | None = None
    cuts: list[int] = attrs.field(factory=list)
    garbage: bool = False
    damage: set[str] = attrs.field(factory=set)
    more: bytes = b""
    no_range: bool = False
    elsewhere: str = ""
    entries: list[Any] = attrs.field(factory=list)
    commit: str = COMMIT
    page: int = 0
    next_at: str = ""
    instead: dict[str, bytes] = attrs.field(factory=dict)
    asked: list[tuple[str, str | None, str | None]] = attrs.field(factory=list)
    url: str = ""

    def listing(self) -> list[Any]:
        """Return the list of files."""
        return [self._entry(path) for path in self.files] + self.entries

    def _entry(self, path: str) -> dict[str, Any]:
        content = self.files[path]
        sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {
            "type": "file",
            "path": path,
            "size": len(content),
            "oid": sha1,
        }
        if not path.endswith(".json"):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest()}
        return entry


@contextmanager
def serving(hub: FakeHub, tls: ssl.SSLContext | None = None) -> Iterator[FakeHub]:
    """Serve a hub while the block runs; ``tls``: by HTTPS."""

    class Handler(_Handler):
        of = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    if tls is not None:
        # The handshake is its handler's, in a thread of its own.
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        hub.url = f"https://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    of: FakeHub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        hub, headers = self.of, self.headers
        auth = headers.get("authorization")
        hub.asked.append((self.path, headers.get("range"), auth))
        file = f"/{REPO}/resolve/{hub.commit}/"
        api = f"/api/models/{REPO}"
        tree = f"{api}/tree/{hub.commit}?recursive=true"
        if hub.token is not None and auth != f"Bearer {hub.token}":
            self._send(401, b"")
        elif self.path in (f"{api}/revision/main", f"{api}/revision/{hub.commit}"):
            body = json.dumps({"sha": hub.commit}).encode()
            self._send(200, hub.instead.get("revision", body))
        elif self.path.startswith(f"{tree}&cursor="):
            self._send_page(tree, int(self.path.rpartition("=")[2]))
        elif self.path == tree:
            self._send_page(tree, 0)
        elif self.path.startswith(file) and hub.elsewhere:
            self._send(302, b"", location=hub.elsewhere + self.path)
        elif self.path.startswith(file):
            self._send_file(unquote(self.path.removeprefix(file)))
        else:
            self._send(404, b"")

    def _send_page(self, tree: str, start: int) -> None:
        hub, listed = self.of, self.of.listing()
        end = start + (hub.page or len(listed))
        following = f"{hub.next_at or hub.url}{tree}&cursor={end}"
        links = {"link": f'</first>; rel="first", <{following}>; rel="next"'}
        body = json.dumps(listed[start:end]).encode()
        links = links if end < len(listed) else {}
        self._send(200, hub.instead.get("tree", body), **links)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, path: str) -> None:
        hub = self.of
        body = hub.files[path] + hub.more
        if path in hub.damage:
            body = body[::-1]
        asked = self.headers.get("range")
        status, at = 200, 0
        if asked is not None and not hub.no_range:
            status, at = 206, int(asked.removeprefix("bytes=").removesuffix("-"))
        body = body[at:]
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if not hub.cuts:
            self.wfile.write(body)
            return
        self.wfile.write(body[: hub.cuts.pop(0)])
        if hub.garbage:
            self.wfile.flush()
            os.write(self.connection.fileno(), b"no TLS" * 100)
