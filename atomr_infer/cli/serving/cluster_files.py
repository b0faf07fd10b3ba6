"""What a node of a cluster needs of files: that they are there, fit, and are private.

Each mistake is told with the line of the key that names the file.
"""

from __future__ import annotations

import math
import re
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from atomr.http2 import Credentials
from atomr.http2.identity import node_uri
from atomr_infer.config.secrets import resolve_own
from atomr_infer.errors import ConfigError
from atomr_infer.model.secret import FileSecret
from atomr_infer.serving.node import make_node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from atomr_infer.cli.plan import ServePlan
    from atomr_infer.config.node import ClusterConfig
    from atomr_infer.serving.node import ServingNode

_MAKE = "make it with: atomr-infer cluster certs"
_KEYS = ("cookie", "private_key", "certificate", "ca", "listen", "advertise", "seeds")
_OTHERS = stat.S_IRWXO
SOON_DAYS = 30


def check_cluster_files(
    plan: ServePlan, environ: Mapping[str, str], *, within_days: float = math.inf
) -> tuple[str, ...]:
    """Look at the files of a node; return what an operator should know of them.

    Args:
        plan: what is served.
        environ: where the cookie may be.
        within_days: the end of a certificate that is further away is not told.

    Raises:
        ConfigError: one of them is not there, or does not fit the others.
    """
    cluster = plan.cluster
    if cluster is None:
        return ()
    lacking = "the cluster has no cookie"
    try:
        resolve_own(cluster.cookie, environ, lacking=lacking)
    except ConfigError as error:
        raise _pointed(plan, error, "cookie") from error
    for key in ("ca", "certificate", "private_key"):
        _read(plan, key, Path(getattr(cluster, key)))
    _check_pair(plan, cluster)
    _check_authority(plan, cluster)
    return tuple(_notes(cluster, within_days))


def node_of(
    plan: ServePlan, environ: Mapping[str, str], *, alive: Path | None = None
) -> ServingNode:
    """Return the node to stand on; what is wrong is said with the line of its key.

    Raises:
        ConfigError: as :func:`~atomr_infer.serving.node.make_node` does.
    """
    try:
        return make_node(plan.node, plan.cluster, environ, alive=alive)
    except ConfigError as error:
        found = (key for key in _KEYS if re.search(rf"\b{key}\b", error.message))
        raise _pointed(plan, error, next(found, "")) from error


def _pointed(plan: ServePlan, error: ConfigError, key: str) -> ConfigError:
    if plan.origin is not None and error.path is None:
        where = ("cluster", key) if key else ("cluster",)
        error.path = plan.origin.path
        error.line = plan.origin.positions.line(where)
    return error


def _wrong(plan: ServePlan, key: str, problem: str) -> ConfigError:
    return _pointed(plan, ConfigError(f"[cluster] {key}: {problem}"), key)


def _read(plan: ServePlan, key: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        why = error.strerror or error
        problem = f"{str(path)!r} cannot be read ({why}); {_MAKE}"
        raise _wrong(plan, key, problem) from error


def _check_pair(plan: ServePlan, cluster: ClusterConfig) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cluster.ca)
    except ssl.SSLError as error:
        raise _wrong(plan, "ca", f"{cluster.ca!r} holds no certificate") from error
    try:
        context.load_cert_chain(cluster.certificate, cluster.private_key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"{cluster.private_key!r} is not the key of the certificate"
            raise _wrong(plan, "private_key", problem) from error
        try:
            Credentials.load(
                ca_file=cluster.ca,
                certificate_file=cluster.certificate,
                key_file=cluster.private_key,
            )
        except ValueError as named:
            is_first = str(named).startswith("no certificate in")
            key = "certificate" if is_first else "private_key"
            raise _wrong(plan, key, str(named)) from error


def _check_authority(plan: ServePlan, cluster: ClusterConfig) -> None:
    """Refuse what other nodes would refuse."""
    credentials = Credentials.load(
        ca_file=cluster.ca,
        certificate_file=cluster.certificate,
        key_file=cluster.private_key,
    )
    uris, name = credentials.own_uris(), plan.node.own_name
    if uris is None:
        ends = _ends_at(cluster)
        problem = f"{cluster.certificate!r} is not signed by the authority in ca"
        if ends is not None and ends < datetime.now(UTC):
            problem = f"{cluster.certificate!r} has expired, on {ends:%Y-%m-%d}"
        raise _wrong(plan, "certificate", f"{problem}; {_MAKE}")
    wanted = node_uri(cluster.name, name)
    if wanted not in uris:
        found = ", ".join(uris) or "nobody"
        problem = f"{cluster.certificate!r} names {found}, and this node is {wanted}"
        raise _wrong(plan, "certificate", problem)


def _notes(cluster: ClusterConfig, within_days: float) -> Iterator[str]:
    if isinstance(cluster.cookie, FileSecret):
        yield from _public(Path(cluster.cookie.path), "the cookie of the cluster")
    yield from _public(Path(cluster.private_key), "the private key of this node")
    ends = _ends_at(cluster)
    if ends is not None:
        days = (ends - datetime.now(UTC)).days
        if days < within_days:
            soon = "; renew it with: atomr-infer cluster certs"
            told = soon if days < SOON_DAYS else ""
            day = f"{ends:%Y-%m-%d}"
            yield f"this node's certificate expires on {day}, in {days} days{told}"


def _public(path: Path, what: str) -> Iterator[str]:
    mode = path.stat().st_mode
    if mode & _OTHERS:
        shown = stat.S_IMODE(mode)
        yield (
            f"{what} is open to every user of this machine ({path} has mode "
            f"{shown:04o}): chmod 600 {path}"
        )


def _ends_at(cluster: ClusterConfig) -> datetime | None:
    """Return until when the certificate is good; None: nothing here can read it."""
    try:
        from cryptography import x509  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    text = Path(cluster.certificate).read_bytes()
    return x509.load_pem_x509_certificate(text).not_valid_after_utc
