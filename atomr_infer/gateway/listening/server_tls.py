"""The certificate that the gateway shows, as a context of ``ssl``."""

from __future__ import annotations

import ssl

from atomr_infer.errors import ConfigError

# What hypercorn speaks behind TLS, the better one first.
_PROTOCOLS = ["h2", "http/1.1"]


def server_context(certificate: str, private_key: str) -> ssl.SSLContext:
    """Return a context for connections that clients make; TLS 1.2 and newer.

    Args:
        certificate: path of a PEM file with the certificate and its chain.
        private_key: path of a PEM file with the key, which has no password.

    Raises:
        ConfigError: a file cannot be read, or the two do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Asked for a password, OpenSSL would wait at the terminal for it.
        context.load_cert_chain(certificate, private_key, password="")
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot serve TLS with certificate {certificate!r} and private key "
            f"{private_key!r}: {reason}",
            setting="certificate",
        ) from error
    context.set_alpn_protocols(_PROTOCOLS)
    return context
