"""Who is at the other end of a link, and how it proves that.

A node has a certificate of the cluster's authority with exactly one URI among its
subject alternative names that starts with ``node:``.  TLS proves that the peer holds
the key of its certificate; that URI says which node it may speak as.  A URI, and not
a DNS name: no public authority signs ``node:``, and no node is taken for a host.

The second factor is the cluster's cookie, a secret of all nodes.  It never goes over
the wire: a hello carries a code made with it over both certificates, so that what
one peer has heard is of no use at another one.

Pure.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEME = "node:"

MIN_COOKIE_BYTES = 16
"""A peer with a certificate can guess a short cookie offline, from one hello."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
_PURPOSE = b"atomr link 1"


def check_name(kind: str, name: str) -> None:
    """Refuse a name that has no place in a certificate.

    Raises:
        ValueError: it is none of letters, digits, ``.``, ``_``, ``@`` and ``-``, or
            longer than 128 characters.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{kind} {name!r}: expected up to 128 letters, digits and any of ._@-,"
            " a letter or digit first"
        )


def node_uri(cluster: str, node: str) -> str:
    """Return what a node's certificate says.

    >>> node_uri("prod", "ams-1")
    'node:prod/ams-1'

    Raises:
        ValueError: a name is malformed.
    """
    check_name("cluster", cluster)
    check_name("node", node)
    return f"{SCHEME}{cluster}/{node}"


def node_uris(certificate: Mapping[str, object]) -> tuple[str, ...]:
    """Return the nodes that a certificate names.

    Args:
        certificate: as ``ssl.SSLSocket.getpeercert`` returns it.

    >>> node_uris({"subjectAltName": (("DNS", "a"), ("URI", "node:prod/a"))})
    ('node:prod/a',)
    """
    names = certificate.get("subjectAltName", ())
    assert isinstance(names, tuple)
    return tuple(
        value for kind, value in names if kind == "URI" and value.startswith(SCHEME)
    )


@attrs.frozen
class Seal:
    """Makes and checks the codes of one connection's hellos.

    Attributes:
        cookie: the cluster's secret.
        own: our certificate, DER.
        peers: the peer's, DER.
    """

    cookie: bytes = attrs.field(repr=False)
    own: bytes = attrs.field(repr=False)
    peers: bytes = attrs.field(repr=False)

    def make(self, *, dialed: bool, cluster: str, node: str, boot: int) -> bytes:
        """Return the code of our hello.

        Args:
            dialed: we opened the connection.
            cluster: our cluster.
            node: our name.
            boot: our boot id.
        """
        said = (cluster, node, str(boot))
        return _code(self.cookie, said, of=self.own, to=self.peers, dialed=dialed)

    def holds(
        self, proof: bytes, *, dialed: bool, cluster: str, node: str, boot: int
    ) -> bool:
        """Return whether the peer knows the cookie.

        Args:
            proof: the code of its hello.
            dialed: the peer opened the connection.
            cluster: what it said.
            node: what it said.
            boot: what it said.
        """
        said = (cluster, node, str(boot))
        made = _code(self.cookie, said, of=self.peers, to=self.own, dialed=dialed)
        return hmac.compare_digest(made, proof)


def _code(
    cookie: bytes, said: tuple[str, ...], *, of: bytes, to: bytes, dialed: bool
) -> bytes:
    parts = [
        _PURPOSE,
        b"dialed" if dialed else b"accepted",
        hashlib.sha256(of).digest(),
        hashlib.sha256(to).digest(),
        *(part.encode() for part in said),
    ]
    # Each part with its length: no two lists are the same bytes.
    text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(cookie, text, "sha256")
