"""A crawler that is polite to each host, and loses one page to a crash.

    python examples/rate_limited_crawler.py

It crawls two small sites, which this program itself serves on this machine.
A *frontier* knows which pages are to be read; *workers* ask it for the next,
and are plain processes under a supervisor.  Before a request a worker asks its
host's *token bucket*, which lets so many pass in a second, whatever the number
of workers.  A site that is busy is asked again later.  One page makes our
parser crash: its worker dies, the frontier hears of that by a monitor and
gives the page up, and the supervisor starts another worker.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import attrs
import trio

from atomr.errors import AlreadyStartedError
from atomr.otp import (
    Down,
    DynamicSupervisor,
    From,
    GenServer,
    NoReply,
    Registry,
    RegistryRef,
    Reply,
    Request,
    Restart,
    Strategy,
    Supervisor,
    call,
    child,
    start_child,
)
from atomr.process import (
    PlainProcess,
    demonitor,
    monitor,
    open_node,
    self_pid,
    send_after,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.refs import Ref

FRONTIER = "frontier"
HOSTS: RegistryRef[str, None] = RegistryRef("hosts")
BUCKETS = "token buckets"

WORKERS = 4
TRIES = 3
RETRY_S = 0.01
PER_SECOND = 100.0
BURST = 2

# --- token buckets: politeness ------------------------------------------------------


@attrs.frozen
class Acquire(Request[None]):
    """Ask for leave to send one request; the reply is the leave."""


class TokenBucket(GenServer):
    """Lets ``burst`` pass at once, and ``per_second`` in the long run.

    Who has to wait is answered later; the bucket itself never waits.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self.every_s = 1 / per_second
        self.burst = burst
        self.tokens = burst
        self.waiting: deque[From] = deque()

    def handle_call(self, request: Acquire, from_: From) -> Reply | NoReply:
        """Give a token, now or when there is one."""
        if self.tokens == self.burst:
            send_after(self.every_s, self_pid(), "tick")
        if self.tokens > 0:
            self.tokens -= 1
            return Reply(None)
        self.waiting.append(from_)
        return NoReply()

    def handle_info(self, message: str) -> NoReply:
        """Give the next token to who has waited longest, or keep it."""
        while self.waiting and self.waiting[0].answered:
            self.waiting.popleft()  # gave up, or died
        if self.waiting:
            self.waiting.popleft().reply(None)
        else:
            self.tokens += 1
        if self.tokens < self.burst:
            send_after(self.every_s, self_pid(), "tick")
        return NoReply()


async def be_polite(host: str) -> None:
    """Wait until the host may be asked once more; its bucket is made on demand."""
    if HOSTS.whereis(host) is None:
        start = partial(TokenBucket, PER_SECOND, BURST)
        with suppress(AlreadyStartedError):
            await start_child(BUCKETS, child(start, id=host, name=HOSTS.via(host)))
    await call(HOSTS.via(host), Acquire(), timeout_s=None)


# --- the frontier: what is to be read -----------------------------------------------


@attrs.frozen
class Next(Request[str | None]):
    """Ask for a page to read; None: there is no more."""


@attrs.frozen
class Finished(Request[None]):
    """Tell what came of a page, and where it leads."""

    url: str
    outcome: str
    links: tuple[str, ...] = ()


@attrs.frozen
class Outcomes(Request[dict[str, str]]):
    """Ask what came of each page; answered when all is done."""


class Frontier(GenServer):
    """Gives out each page once, and keeps what came of it."""

    def __init__(self, *urls: str) -> None:
        self.todo = deque(urls)
        self.seen = set(urls)
        self.reading: dict[Ref, str] = {}
        self.outcomes: dict[str, str] = {}
        self.workers: list[From] = []
        self.askers: list[From] = []

    def handle_call(self, request: Next | Finished | Outcomes, from_: From) -> NoReply:
        """Take note; answers are given when there is something to say."""
        match request:
            case Next():
                self.workers.append(from_)
            case Outcomes():
                self.askers.append(from_)
            case Finished(url, outcome, links):
                new = [link for link in dict.fromkeys(links) if link not in self.seen]
                self.todo.extend(new)
                self.seen.update(new)
                [ref] = [ref for ref, its in self.reading.items() if its == url]
                demonitor(ref, flush=True)
                self.close(ref, outcome)
                from_.reply(None)
        return self.go_on()

    def handle_info(self, message: Down) -> NoReply:
        """Give up the page of a worker that died."""
        self.close(message.ref, f"lost: {message.reason!r}")
        return self.go_on()

    def close(self, ref: Ref, outcome: str) -> None:
        """Note what came of a page."""
        self.outcomes[self.reading.pop(ref)] = outcome

    def go_on(self) -> NoReply:
        """Answer those who can be answered."""
        while self.workers and self.todo:
            worker = self.workers.pop()
            if worker.pid is not None and not worker.answered:
                url = self.todo.popleft()
                self.reading[monitor(worker.pid)] = url
                worker.reply(url)
        if not self.todo and not self.reading:
            for worker in self.workers:
                worker.reply(None)
            for asker in self.askers:
                asker.reply(dict(self.outcomes))
        return NoReply()


# --- workers ------------------------------------------------------------------------


async def work() -> None:
    """Read pages until there are no more."""
    while (url := await call(FRONTIER, Next(), timeout_s=None)) is not None:
        await call(FRONTIER, await read(url))


async def read(url: str) -> Finished:
    """Read one page; a busy site is asked again, a little later each time."""
    for attempt in range(1, TRIES + 1):
        await be_polite(urlsplit(url).netloc)
        status, text = await fetch(url)
        if status == 200:
            links = tuple(urljoin(url, link) for link in links_of(text))
            tries = "" if attempt == 1 else f" at try {attempt}"
            return Finished(url, f"links: {len(links)}{tries}", links)
        if status != 503:
            return Finished(url, f"status {status}")
        await trio.sleep(RETRY_S * 2**attempt)
    return Finished(url, f"busy {TRIES} times")


async def fetch(url: str) -> tuple[int, str]:
    """Return a page's status and text."""
    parts = urlsplit(url)
    assert parts.port is not None, "our sites all have one"
    request = f"GET {parts.path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
    async with await trio.open_tcp_stream(str(parts.hostname), parts.port) as stream:
        await stream.send_all(request.encode())
        answer = b"".join([chunk async for chunk in stream]).decode()
    head, _, text = answer.partition("\r\n\r\n")
    return int(head.split()[1]), text


def links_of(text: str) -> list[str]:
    """Return a page's links.

    It has a bug: it believes that every ``href`` has quotes.
    """
    return [rest.split('"')[1] for rest in text.split("href=")[1:]]


def crawler(*urls: str) -> Supervisor:
    """Return the crawler's tree; workers come last, as they need all the rest."""
    return Supervisor(
        [
            child(Registry, id=HOSTS.name, name=HOSTS.name),
            child(DynamicSupervisor, id=BUCKETS, name=BUCKETS),
            child(lambda: Frontier(*urls), id=FRONTIER, name=FRONTIER),
            child(workers),
        ],
        strategy=Strategy.REST_FOR_ONE,
    )


def workers() -> Supervisor:
    """Return the supervisor of the workers: done is done, crashed is replaced."""
    return Supervisor(
        [
            child(
                lambda: PlainProcess(work),
                id=f"worker {number}",
                restart=Restart.TRANSIENT,
            )
            for number in range(WORKERS)
        ],
        max_restarts=100,
    )


# --- two sites to crawl -------------------------------------------------------------


class Site:
    """A web site of a few pages, which counts who asks.

    Args:
        pages: the text of each path.
        busy: how often a path is answered with 503 before it is served.
    """

    def __init__(self, pages: Mapping[str, str], busy: Mapping[str, int]) -> None:
        self.pages = pages
        self.busy = dict(busy)
        self.asked_at: list[float] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request."""
        async with stream:
            path = (await stream.receive_some()).split()[1].decode()
            self.asked_at.append(trio.current_time())
            status, text = "200 OK", self.pages.get(path, "")
            if path not in self.pages:
                status = "404 Not Found"
            elif self.busy.get(path, 0) > 0:
                self.busy[path] -= 1
                status, text = "503 Service Unavailable", ""
            await stream.send_all(f"HTTP/1.0 {status}\r\n\r\n{text}".encode())

    def was_asked_politely(self, since: float) -> bool:
        """Whether no more came than a token bucket lets pass."""
        return all(
            number <= BURST + (at - since) * PER_SECOND
            for number, at in enumerate(self.asked_at, start=1)
        )


async def main() -> None:
    """Serve two sites, crawl them, and say what came of each page."""
    one_listener, two_listener = [
        (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(2)
    ]
    base = {
        name: f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        for name, listener in (("one", one_listener), ("two", two_listener))
    }
    one = Site(
        {
            "/": '<a href="/a"> <a href="/b"> <a href="/missing">',
            "/a": f'<a href="/"> <a href="{base["two"]}/">',
            "/b": '<a href="/broken"> <a href="/busy">',
            "/broken": "<a href=/a>",
            "/busy": '<a href="/a">',
        },
        busy={"/b": 1, "/busy": TRIES},
    )
    two = Site(
        {"/": "".join(f'<a href="/{n}">' for n in range(9))}
        | {f"/{n}": '<a href="/">' for n in range(9)},
        busy={"/3": 2},
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, one.serve, [one_listener])
        nursery.start_soon(trio.serve_listeners, two.serve, [two_listener])
        began_at = trio.current_time()
        async with open_node() as node:
            await node.start(child(lambda: crawler(f"{base['one']}/"), id="crawler"))
            outcomes = await call(FRONTIER, Outcomes(), timeout_s=None)
        nursery.cancel_scope.cancel()

    for url, outcome in sorted(
        (url.replace(base["one"], "one").replace(base["two"], "two"), outcome)
        for url, outcome in outcomes.items()
    ):
        print(f"{url}: {outcome}")
    for name, site in (("one", one), ("two", two)):
        polite = "politely" if site.was_asked_politely(began_at) else "rudely"
        print(f"{name} was {polite} asked {len(site.asked_at)} times")


if __name__ == "__main__":
    logging.basicConfig(format="%(name)s %(levelname)s: %(message)s")
    trio.run(main)
