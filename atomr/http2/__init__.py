"""Links between nodes: HTTP/2 over mutual TLS, with calls, tells and streams.

What is promised, and what is not, is in ``docs/reference/node-links.md``.
"""

from atomr.http2.events import Lane, Reason
from atomr.http2.identity import node_uri
from atomr.http2.link import Link
from atomr.http2.links import (
    LinkDown,
    LinkEvent,
    LinkOptions,
    LinkRefused,
    Links,
    LinkUp,
    open_links,
)
from atomr.http2.services import IncomingCall, Service
from atomr.http2.streams import LinkStream
from atomr.http2.tls import Credentials

__all__ = [
    "Credentials",
    "IncomingCall",
    "Lane",
    "Link",
    "LinkDown",
    "LinkEvent",
    "LinkOptions",
    "LinkRefused",
    "LinkStream",
    "LinkUp",
    "Links",
    "Reason",
    "Service",
    "node_uri",
    "open_links",
]
