"""How an upstream's certificate is checked, and in words what is wrong with it."""

from __future__ import annotations

import ssl

# Verification codes of OpenSSL (x509_vfy.h).
_NOT_YET_VALID = 9
_EXPIRED = 10
_SELF_SIGNED = 18
_SELF_SIGNED_IN_CHAIN = 19
_NO_ISSUER = 20
_NO_FIRST = 21
_WRONG_HOST = 62
_WRONG_ADDRESS = 64

_PROBLEMS = {
    _NOT_YET_VALID: "its certificate is not valid yet; look at this machine's clock",
    _EXPIRED: "its certificate has expired",
    _SELF_SIGNED: "its certificate is self-signed, and nobody here trusts it",
    _SELF_SIGNED_IN_CHAIN: (
        "its certificate is signed by an authority that nobody here trusts;"
        " name its file in SSL_CERT_FILE"
    ),
    _NO_ISSUER: (
        "its certificate is signed by an authority that is not known here;"
        " name its file in SSL_CERT_FILE"
    ),
    _NO_FIRST: "its certificate comes without those that vouch for it",
    _WRONG_HOST: "its certificate is for another host",
    _WRONG_ADDRESS: "its certificate is for another address",
}


def verifying_context(
    *,
    ca_file: str | None = None,
    certificate_file: str | None = None,
    key_file: str | None = None,
) -> ssl.SSLContext:
    """Return a context that verifies whom it talks to.

    Args:
        ca_file: authorities in PEM form, in place of the system's; None: the
            file that ``SSL_CERT_FILE`` names, else the system's.
        certificate_file: our own certificate in PEM form, for an upstream that
            asks for one.
        key_file: its key; None: it is in ``certificate_file``.

    Raises:
        ValueError: a file cannot be used; it is named.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"no authorities in {ca_file}: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    if certificate_file is not None:
        try:
            # Without a password: a question on the terminal would hang a server.
            context.load_cert_chain(certificate_file, key_file, password="")
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"no certificate with its key in {certificate_file}: {error}"
            ) from error
    return context


def tls_problem(error: BaseException) -> str | None:
    """Return in words what went wrong in a handshake; None: it was not TLS.

    trio raises the error of the handshake as the cause of its own.
    """
    found: BaseException | None = error
    while found is not None and not isinstance(found, ssl.SSLError):
        found = found.__cause__
    if found is None:
        return None
    if isinstance(found, ssl.SSLCertVerificationError):
        default = f"its certificate cannot be verified: {found.verify_message}"
        return _PROBLEMS.get(found.verify_code, default)
    if isinstance(found, ssl.SSLEOFError):
        return "it closed the connection in the TLS handshake"
    if found.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS; is its URL one of http?"
    reason = (found.reason or type(found).__name__).lower().replace("_", " ")
    return f"the TLS handshake failed: {reason}"
