"""Certificates for the nodes of a cluster: a small authority, in a folder.

For development, and for clusters whose nodes one person sets up: the authority's
key lies in a file beside the others.  Whoever has an authority of their own makes
certificates with it; what a node's must say is in ``docs/reference/node-links.md``.

An authority is never overwritten: every node's certificate would be worth nothing.
A node's certificate is kept while it is good for another third of its life.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from atomr.http2.identity import node_uri
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

AUTHORITY_DAYS = 3650
NODE_DAYS = 365

_PRIVATE = 0o600

_CLOCK_SKEW = dt.timedelta(minutes=5)


@attrs.frozen
class Pem:
    """A certificate and its key, both PEM.

    Attributes:
        certificate: the certificate.
        key: its key.
    """

    certificate: bytes
    key: bytes = attrs.field(repr=False)


@attrs.frozen
class Made:
    """What became of one file.

    Attributes:
        path: the certificate; its key is beside it.
        is_new: it was made now; otherwise it was there, and is kept.
    """

    path: Path
    is_new: bool


def make_folder(
    folder: Path, *, cluster: str, nodes: tuple[str, ...], days: int = NODE_DAYS
) -> list[Made]:
    """Make what is missing in a folder: the authority, and each node's certificate.

    Args:
        folder: made where it is not there.
        cluster: the cluster's name.
        nodes: their names.
        days: how long a new certificate of a node is good, at least 1.

    Returns:
        The authority first, then the nodes in their order.

    Raises:
        ConfigError: a name is malformed, or a file is in the way or cannot be
            written.
    """
    try:
        uris = {node: node_uri(cluster, node) for node in nodes}
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if "ca" in uris:
        raise ConfigError("no node can be called 'ca': that is the authority's file")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority, made = _authority(folder, cluster)
        return [
            made,
            *(_node(folder, authority, uri, node, days) for node, uri in uris.items()),
        ]
    except OSError as error:
        raise ConfigError(f"cannot write certificates: {error}") from error


def make_authority(cluster: str) -> Pem:
    """Return a new authority for a cluster's nodes."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    key = _new_key()
    name = _named(f"atomr cluster {cluster}")
    builder = (
        _started(AUTHORITY_DAYS)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
    )
    return _pem(builder.sign(key, hashes.SHA256()), key)


def make_node(authority: Pem, uri: str, *, days: int = NODE_DAYS) -> Pem:
    """Return a new certificate of a node.

    Args:
        authority: signs it.
        uri: which node it is: see ``atomr.http2.node_uri``.
        days: how long it is good; negative for one that has expired.
    """
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415

    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signer = serialization.load_pem_private_key(authority.key, password=None)
    key = _new_key()
    uses = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _started(days)
        .subject_name(_named(uri.rpartition("/")[2][:64]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    return _pem(builder.sign(signer, hashes.SHA256()), key)  # type: ignore[arg-type]


def _authority(folder: Path, cluster: str) -> tuple[Pem, Made]:
    from cryptography import x509  # noqa: PLC0415

    path, key_path = folder / "ca.pem", folder / "ca.key"
    if path.exists() != key_path.exists():
        there, missing = (path, key_path) if path.exists() else (key_path, path)
        raise ConfigError(
            f"{there} is there and {missing} is not; an authority is not overwritten:"
            f" put {missing.name} back, or use another folder"
        )
    if not path.exists():
        authority = make_authority(cluster)
        _write(path, authority)
        return authority, Made(path, is_new=True)
    authority = Pem(path.read_bytes(), key_path.read_bytes())
    try:
        subject = x509.load_pem_x509_certificate(authority.certificate).subject
    except ValueError as error:
        raise ConfigError(f"{path} is no certificate: {error}") from error
    if subject != _named(f"atomr cluster {cluster}"):
        raise ConfigError(
            f"{path} is the authority of {subject.rfc4514_string()}, not of"
            f" {cluster!r}; use another folder"
        )
    return authority, Made(path, is_new=False)


def _node(folder: Path, authority: Pem, uri: str, node: str, days: int) -> Made:
    path = folder / f"{node}.pem"
    if _is_good(path, authority, uri):
        return Made(path, is_new=False)
    _write(path, make_node(authority, uri, days=days))
    return Made(path, is_new=True)


def _is_good(path: Path, authority: Pem, uri: str) -> bool:
    """Return whether a node's certificate can be kept."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    if not (path.exists() and path.with_suffix(".key").exists()):
        return False
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        found.verify_directly_issued_by(
            x509.load_pem_x509_certificate(authority.certificate)
        )
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, InvalidSignature, x509.ExtensionNotFound):
        return False
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    return uris == [uri] and ends - _now() > (ends - begins) / 3


def _write(path: Path, pem: Pem) -> None:
    """Write the key first: a certificate without it is made again the next time."""
    for file, text in ((path.with_suffix(".key"), pem.key), (path, pem.certificate)):
        draft = file.with_name(f".{file.name}.new")
        draft.unlink(missing_ok=True)
        with open(draft, "xb", opener=_private) as opened:
            opened.write(text)
        draft.replace(file)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, _PRIVATE)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    return ec.generate_private_key(ec.SECP256R1())


def _named(name: str) -> x509.Name:
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _started(days: int) -> x509.CertificateBuilder:
    from cryptography import x509  # noqa: PLC0415

    ends = _now() + dt.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(_now(), ends) - _CLOCK_SKEW)
        .not_valid_after(ends)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509  # noqa: PLC0415

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> Pem:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    return Pem(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
